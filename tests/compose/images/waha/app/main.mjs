// A gateway with WAHA's outside. README.md tells what of it is real.

import { access, constants, mkdir } from 'node:fs/promises'

import { log } from './log.mjs'
import { serve } from './server.mjs'
import { Sessions } from './sessions.mjs'
import * as settings from './settings.mjs'
import { Store } from './store.mjs'

// Only the engine in use is loaded: each brings libraries of its own.
const engines = {
	GOWS: async () => (await import('./engines/gows.mjs')).Gows,
	NOWEB: async () => (await import('./engines/noweb.mjs')).Noweb,
	WEBJS: async () => (await import('./engines/webjs.mjs')).Webjs
}

// Before anything is written, so that a TERM while starting is an orderly stop too.
const asked = new Promise(resolve => {
	for (const signal of ['SIGTERM', 'SIGINT']) {
		process.on(signal, () => resolve(signal))
	}
})

if (settings.access.keyIsRandom) {
	log.warn('WAHA_API_KEY is not set: the key is a random one, and nobody knows it')
}
await mkdir(settings.sessionsFolder, { recursive: true })
const store = new Store(settings.ownFolder, settings.worker.id)
const Engine = await engines[settings.engine]()
const engine = new Engine()
const sessions = new Sessions(settings, engine, store)
let stopping = false
await engine.start((code, signal) => {
	if (!stopping) {
		sessions.fail(`the engine's process ended with ${signal ?? code}`)
	}
})

async function health() {
	const writable = await access(settings.sessionsFolder, constants.W_OK).then(() => true, () => false)
	return writable && engine.healthy
}
await serve({ sessions, health })
log.info('WAHA (stand-in) is listening', { port: settings.port, engine: settings.engine, worker: settings.worker.id })
const restarted = sessions.restart()

const signal = await asked
stopping = true
log.info('stopping', { signal, sessions: sessions.list(false).map(session => session.name) })
await restarted
await sessions.stopBySignal()
store.close()
log.info('stopped')
process.exit(0)

// What the environment says, read once.

import { randomBytes, createHash } from 'node:crypto'
import { hostname } from 'node:os'
import { join } from 'node:path'

const env = process.env
const yes = (text, otherwise) => (text ? /^(true|1|yes|on)$/i.test(text) : otherwise)
const sha512 = text => createHash('sha512').update(text).digest('hex')

export const engine = (env.WHATSAPP_DEFAULT_ENGINE || 'WEBJS').toUpperCase()
if (!['GOWS', 'NOWEB', 'WEBJS'].includes(engine)) {
	throw new Error(`WHATSAPP_DEFAULT_ENGINE is ${engine}; this image has GOWS, NOWEB and WEBJS`)
}

const base = env.WAHA_LOCAL_STORE_BASE_DIR || '/app/.sessions'
export const ownFolder = join(base, env.WAHA_NAMESPACE || engine.toLowerCase())
export const sessionsFolder = join(base, env.WAHA_SESSION_NAMESPACE || engine.toLowerCase())

// Without a name of its own a worker is a new one at every start, and finds no session it ran.
export const worker = {
	id: env.WAHA_WORKER_ID || `waha-${hostname()}-${randomBytes(4).toString('hex')}`,
	restartSessions: yes(env.WAHA_WORKER_RESTART_SESSIONS, true)
}

export const port = Number(env.WHATSAPP_API_PORT || env.PORT || '3000')

export const access = {
	keyIsRandom: !env.STAND_IN_API_KEY_SHA512,
	keyHash: env.STAND_IN_API_KEY_SHA512 || sha512(randomBytes(16).toString('hex')),
	openPaths: (env.WHATSAPP_API_KEY_EXCLUDE_PATH || '')
		.split(',')
		.map(path => path.trim().replace(/^\/+/, ''))
		.filter(path => path),
	dashboard: { username: env.WAHA_DASHBOARD_USERNAME || 'waha', password: env.WAHA_DASHBOARD_PASSWORD || '' }
}

// The tests' own.
export const standIn = {
	stopSeconds: Number(env.STAND_IN_STOP_SECONDS || '3'),
	preKeys: Number(env.STAND_IN_PRE_KEYS || '800'),
	peerFolder: env.STAND_IN_PEER_DIR || null
}

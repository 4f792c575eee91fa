// A bot on the real Baileys library. Its accounts are real `useMultiFileAuthState` folders, and
// they write to each other through the library's own Signal repository. Nothing leaves the
// process: the message that one account encrypts is handed to the other, which decrypts it.
// What this exercises is what a restart endangers: ratchets that only move forward, in files
// that are truncated and rewritten in place.
//
// README.md beside this file tells the protocol.

import http from 'node:http'
import { parseArgs } from 'node:util'

import { Fleet } from './fleet.mjs'
import { Journal } from './journal.mjs'

const { values: options } = parseArgs({
	options: {
		dir: { type: 'string', default: process.env.SESSIONS_PATH },
		'peer-dir': { type: 'string' },
		accounts: { type: 'string', default: '3' },
		'pre-keys': { type: 'string', default: '30' },
		host: { type: 'string', default: process.env.HOST ?? '127.0.0.1' },
		port: { type: 'string', default: process.env.PORT ?? '0' },
		every: { type: 'string', default: '0' },
		journal: { type: 'string', default: process.env.JOURNAL },
		'last-words': { type: 'boolean', default: false }
	}
})

if (!options.dir) {
	process.stderr.write('bot.mjs: --dir or SESSIONS_PATH must name the session directory\n')
	process.exit(2)
}

// Installed before anything is written, so that a TERM during start-up is an orderly stop too.
let stopping = false
let stop = () => process.exit(0)
for (const signal of ['SIGTERM', 'SIGINT']) {
	process.on(signal, () => {
		if (!stopping) {
			stopping = true
			stop()
		}
	})
}

const journal = new Journal(options.journal)
const fleet = await Fleet.open({
	dir: options.dir,
	peerDir: options['peer-dir'],
	count: Number(options.accounts),
	preKeys: Number(options['pre-keys']),
	journal
})

// One exchange at a time, as each takes and writes both ratchets. Everything that changes a
// ratchet goes through this queue, and a stop waits for its end.
let tail = Promise.resolve()
function enqueue(work) {
	const result = tail.then(work)
	tail = result.catch(() => {})
	return result
}

let pause = Number(options.every)
let timer
function schedule() {
	clearTimeout(timer)
	if (pause > 0 && !stopping) {
		timer = setTimeout(() => enqueue(() => fleet.exchange({})).finally(schedule), pause)
	}
}

async function exchange(query) {
	const wanted = Number(query.get('n') ?? '1')
	const route = { from: query.get('from'), to: query.get('to') }
	let first = null
	let last = null
	for (let delivered = 0; delivered < wanted; delivered++) {
		const outcome = await enqueue(() => fleet.exchange(route))
		if (outcome.error) {
			return [409, { ok: false, delivered, first, last, error: outcome.error }]
		}
		first ??= outcome.n
		last = outcome.n
	}
	return [200, { ok: true, delivered: wanted, first, last }]
}

async function answer(request) {
	const url = new URL(request.url, 'http://127.0.0.1')
	switch (`${request.method} ${url.pathname}`) {
		case 'GET /ping':
			return [200, { message: 'pong' }]
		case 'GET /state':
			return [200, await enqueue(() => fleet.state())]
		case 'POST /exchange':
			return exchange(url.searchParams)
		case 'POST /every':
			pause = Number(url.searchParams.get('ms') ?? '0')
			schedule()
			return [200, { every_ms: pause }]
		default:
			return [404, { error: { name: 'NotFound', message: `${request.method} ${url.pathname}` } }]
	}
}

const server = http.createServer((request, response) => {
	answer(request)
		.catch(error => [500, { ok: false, error: { name: error.name, message: error.message } }])
		.then(([status, body]) => {
			const text = JSON.stringify(body)
			response.writeHead(status, {
				'content-type': 'application/json',
				'content-length': Buffer.byteLength(text),
				connection: 'close'
			})
			response.end(text)
		})
})

stop = () => {
	clearTimeout(timer)
	server.close()
	enqueue(async () => {
		// A message that is sent and answered after TERM is what a copy taken too early lacks.
		if (options['last-words']) {
			await fleet.exchange({})
		}
		await fleet.close()
	}).then(
		() => process.exit(0),
		error => {
			process.stderr.write(`bot.mjs: failed to stop: ${error.stack}\n`)
			process.exit(1)
		}
	)
}

server.listen(Number(options.port), options.host, () => {
	const ready = { ready: true, port: server.address().port, pid: process.pid, fresh: fleet.fresh, last_message: fleet.lastMessage }
	process.stdout.write(`${JSON.stringify(ready)}\n`)
	schedule()
})

// HTTP: WAHA's own requests, and the tests' under `/stand-in/`.

import { createServer } from 'node:http'

import { refusal } from './access.mjs'
import { log } from './log.mjs'
import { picture } from './png.mjs'
import { Refused } from './sessions.mjs'
import * as settings from './settings.mjs'

const ok = (json, status = 200) => ({ status, json })

function told(session) {
	const { name, status, config, me } = session
	return { name, status, config, me, engine: { engine: settings.engine } }
}

// What changes a session answers with it.
const after = action => async context => {
	const session = context.sessions.get(context.session)
	await action(session, context)
	return ok(told(session), 201)
}

function qr({ sessions, session, request }) {
	const image = picture(sessions.get(session).qr())
	if (String(request.headers.accept).includes('application/json')) {
		return ok({ mimetype: 'image/png', data: image.toString('base64') })
	}
	return { status: 200, headers: { 'content-type': 'image/png' }, body: image }
}

async function sendText({ sessions, body }) {
	const { session = 'default', chatId, text } = body
	if (typeof chatId !== 'string' || typeof text !== 'string') {
		throw new Refused(400, 'chatId and text are needed')
	}
	const n = await sessions.get(session).send()
	return ok({ id: `true_${chatId}_${n.toString(16).toUpperCase().padStart(16, '0')}`, body: text, n }, 201)
}

async function state({ sessions, session: name }) {
	const session = sessions.get(name)
	return ok({ engine: settings.engine, status: session.status, fresh: session.fresh, ...(await session.state()) })
}

function amount(query, name) {
	const value = Number(query.get(name) ?? NaN)
	if (!(value >= 0)) {
		throw new Refused(400, `${name}: a number is needed`)
	}
	return value
}

async function load({ sessions, session, query }) {
	const perSecond = amount(query, 'per_second')
	sessions.get(session).load(perSecond)
	return ok({ per_second: perSecond })
}

const routes = [
	['GET /ping', () => ok({ message: 'pong' })],
	['GET /health', async ({ health }) => ((await health()) ? ok({ status: 'ok' }) : ok({ status: 'error' }, 503))],
	['GET /dashboard', () => ({ status: 200, headers: { 'content-type': 'text/html' }, body: '<!doctype html><title>Dashboard</title>\n' })],
	['GET /api/server/status', () => ok({ startTimestamp: Date.now() - Math.round(process.uptime() * 1000), uptime: Math.round(process.uptime() * 1000), worker: { id: settings.worker.id } })],
	['GET /api/sessions', ({ sessions, query }) => ok(sessions.list(query.get('all') === 'true').map(told))],
	['POST /api/sessions', async ({ sessions, body }) => ok(told(await sessions.create(body)), 201)],
	['GET /api/sessions/:session', ({ sessions, session }) => ok(told(sessions.get(session)))],
	['POST /api/sessions/:session/start', after(session => session.start())],
	['POST /api/sessions/:session/stop', after(session => session.stop('request'))],
	['POST /api/sessions/:session/restart', after(session => session.restart())],
	['POST /api/sessions/:session/logout', after(session => session.logout())],
	['GET /api/:session/auth/qr', qr],
	['POST /api/sendText', sendText],
	['GET /stand-in/:session/state', state],
	['POST /stand-in/:session/scan', after(session => session.scan())],
	['POST /stand-in/:session/load', load],
	['POST /stand-in/:session/grow', async ({ sessions, session, query }) => ok(await sessions.get(session).grow(amount(query, 'bytes')))]
].map(([route, handler]) => ({ pattern: new RegExp(`^${route.replace(':session', '(?<session>[^/]+)')}$`), handler }))

async function read(request) {
	let text = ''
	for await (const part of request) {
		text += part
	}
	try {
		return text ? JSON.parse(text) : {}
	} catch {
		throw new Refused(400, 'the body is not JSON')
	}
}

async function answer(request, parts) {
	const url = new URL(request.url, 'http://localhost')
	const refused = refusal(request, url.pathname)
	if (refused) {
		return refused
	}
	for (const { pattern, handler } of routes) {
		const match = pattern.exec(`${request.method} ${url.pathname}`)
		if (match) {
			return handler({ ...parts, request, query: url.searchParams, body: await read(request), ...match.groups })
		}
	}
	throw new Refused(404, `Cannot ${request.method} ${url.pathname}`)
}

function failure(error) {
	const status = error instanceof Refused ? error.status : 500
	if (status === 500) {
		log.error('a request failed', { reason: error.message })
	}
	return ok({ message: error.message, statusCode: status }, status)
}

export function serve(parts) {
	const server = createServer(async (request, response) => {
		const { status, headers, json, body = '' } = await answer(request, parts).catch(failure)
		const text = json === undefined ? body : JSON.stringify(json)
		const type = json === undefined ? {} : { 'content-type': 'application/json' }
		response.writeHead(status, { ...type, ...headers, 'content-length': Buffer.byteLength(text), connection: 'close' })
		response.end(text)
	})
	return new Promise((resolve, reject) => {
		server.once('error', reject)
		server.listen(settings.port, () => resolve(server))
	})
}

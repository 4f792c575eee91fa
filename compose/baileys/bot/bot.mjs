// An example of a Baileys bot: shows the QR code in the log, answers "ping" with "pong", and stops in
// order. What a bot owes its login is all here: every write is finished before it exits.

import http from 'node:http'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'

import { DisconnectReason, makeWASocket, useMultiFileAuthState } from '@whiskeysockets/baileys'
import pino from 'pino'
import qrcode from 'qrcode-terminal'

const directory = process.env.SESSIONS_PATH ?? './session'
const logger = pino({ level: process.env.BAILEYS_LOG_LEVEL ?? 'warn' })
const say = message => process.stdout.write(`bot: ${message}\n`)

let socket
let stopping = false
let retryTimer
let failures = 0

// What is being written to the login's files just now; `settled` waits for the end of it.
const writes = new Set()
function track(write) {
	writes.add(write)
	// `finally` alone would pass an error on as one that nobody handles; the caller has it already.
	write.then(
		() => writes.delete(write),
		() => writes.delete(write)
	)
	return write
}
async function settled() {
	while (writes.size > 0) {
		await Promise.allSettled(writes)
	}
}

async function connect() {
	const { state, saveCreds } = await useMultiFileAuthState(directory)
	const { get, set } = state.keys
	state.keys = { get, set: data => track(set(data)) }
	if (stopping) {
		return
	}
	socket = makeWASocket({ auth: state, logger, markOnlineOnConnect: false })
	socket.ev.on('creds.update', () => track(saveCreds()).catch(fail))
	socket.ev.on('connection.update', update => track(onConnection(update)).catch(fail))
	socket.ev.on('messages.upsert', ({ type, messages }) => {
		if (type === 'notify') {
			messages.forEach(message => answer(message).catch(error => say(`failed to answer: ${error.message}`)))
		}
	})
}

async function onConnection({ connection, lastDisconnect, qr }) {
	if (qr) {
		say('scan this code with the phone: Settings, Linked devices, Link a device')
		qrcode.generate(qr, { small: true })
	}
	if (connection === 'open') {
		failures = 0
		say(`connected as ${socket.user?.id}`)
	}
	if (connection !== 'close' || stopping) {
		return
	}
	const reason = lastDisconnect?.error?.output?.statusCode
	if (reason === DisconnectReason.loggedOut) {
		// These files can never log in again. Another account may now scan.
		say('the phone has ended this login; beginning anew with a QR code')
		for (const name of await readdir(directory)) {
			if (name.endsWith('.json')) {
				await rm(join(directory, name))
			}
		}
	}
	if (reason === DisconnectReason.connectionReplaced) {
		// Two that take the connection from each other for ever end as a ban.
		say('another program has connected with this login; stopping')
		// Not awaited: the stop itself waits for what is under way, and that includes this.
		stop(1)
		return
	}
	// Asked for by the server, after the code was scanned: at once.
	const pause = reason === DisconnectReason.restartRequired ? 0 : Math.min(60, 2 ** failures++) * 1000
	say(`not connected (${lastDisconnect?.error?.message ?? 'closed'}); the next try is in ${pause / 1000} s`)
	retryTimer = setTimeout(() => connect().catch(fail), pause)
}

async function answer({ key, message }) {
	const text = message?.conversation ?? message?.extendedTextMessage?.text
	if (!key.fromMe && text?.trim().toLowerCase() === 'ping') {
		await socket.sendMessage(key.remoteJid, { text: 'pong' })
	}
}

const server = http.createServer((request, response) => {
	const known = request.method === 'GET' && request.url === '/ping'
	response.writeHead(known ? 200 : 404, { 'content-type': 'application/json', connection: 'close' })
	response.end(JSON.stringify(known ? { message: 'pong' } : { error: 'no such page' }))
})

async function stop(code) {
	if (stopping) {
		return
	}
	stopping = true
	clearTimeout(retryTimer)
	server.close()
	await socket?.end(undefined)
	await settled()
	say('stopped; everything is written')
	process.exit(code)
}

function fail(error) {
	say(`failed: ${error.stack}`)
	stop(1)
}

for (const signal of ['SIGTERM', 'SIGINT']) {
	process.on(signal, () => stop(0).catch(() => process.exit(1)))
}
server.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? '127.0.0.1')
await connect()

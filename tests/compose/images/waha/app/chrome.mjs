// What the browser is to WEBJS: a process with a user data directory. The login is in two LevelDB
// databases, real ones; around them lies what Chrome fills with bulk that nobody needs to keep.
//
//     chrome.mjs USER_DATA_DIR SOCKET
//
// A message moves a hash chain that begins with the login's key, and is written to both databases.

import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, readlinkSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'

import { ClassicLevel } from 'classic-level'

import { log } from './log.mjs'

const PROFILE_IN_USE = 21
const BULK_ROW = 32 * 1024
const SINGLETONS = ['SingletonLock', 'SingletonCookie', 'SingletonSocket']
const BULK = [
	'Default/Cache/Cache_Data/data_1',
	'Default/Code Cache/js/index',
	'Default/GPUCache/data_0',
	'Default/Service Worker/CacheStorage/0/index',
	'Default/Session Storage/000003.log',
	'Crashpad/settings.dat',
	'GrShaderCache/data_0'
]

const [userData, socket] = process.argv.slice(2)
mkdirSync(join(userData, 'Default'), { recursive: true })
lock()
for (const path of BULK) {
	mkdirSync(join(userData, dirname(path)), { recursive: true })
	writeFileSync(join(userData, path), randomBytes(100_000))
}
writeFileSync(join(userData, 'Local State'), '{}')
writeFileSync(join(userData, 'Default', 'Preferences'), '{"profile":{"exit_type":"Crashed"}}')

const indexed = await database('IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb')
const local = await database('Local Storage/leveldb')

// The lock names host and process. Another host's is never broken: its process cannot be asked.
function lock() {
	const path = join(userData, 'SingletonLock')
	let owner = null
	try {
		owner = readlinkSync(path)
	} catch (error) {
		if (error.code !== 'ENOENT') {
			throw error
		}
	}
	const [, host, pid] = /^(.*)-(\d+)$/.exec(owner ?? '') ?? []
	if (owner && (host !== hostname() || isBrowser(pid))) {
		log.error('the profile appears to be in use by another Chromium process', { process: pid, host })
		process.exit(PROFILE_IN_USE)
	}
	SINGLETONS.forEach(name => rmSync(join(userData, name), { force: true }))
	symlinkSync(`${hostname()}-${process.pid}`, path)
	symlinkSync(String(process.hrtime.bigint()), join(userData, 'SingletonCookie'))
	symlinkSync(socket, join(userData, 'SingletonSocket'))
}

// Pids are given out anew in every container, also as those of threads, this process's own among them.
function isBrowser(pid) {
	try {
		const [, leader] = /^Tgid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
		return leader === pid && Number(pid) !== process.pid && readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(userData)
	} catch {
		return false
	}
}

async function database(path) {
	const folder = join(userData, 'Default', path)
	mkdirSync(folder, { recursive: true })
	const opened = new ClassicLevel(folder, { valueEncoding: 'buffer' })
	await opened.open()
	return opened
}

const next = (chain, n) => createHash('sha256').update(chain).update(String(n)).digest()
const key = n => `message-${String(n).padStart(9, '0')}`
const number = value => (value === undefined ? null : Number(value))

async function advance() {
	const n = Number((await indexed.get('last')) ?? '0') + 1
	const chain = next((await indexed.get(key(n - 1))) ?? (await indexed.get('identity')), n)
	await indexed.batch([
		{ type: 'put', key: key(n), value: chain },
		{ type: 'put', key: 'last', value: Buffer.from(String(n)) }
	])
	await local.put('last', Buffer.from(String(n)))
	return n
}

async function state() {
	const identity = await indexed.get('identity')
	if (!identity) {
		return { identity: null, messages: 0, last_words: null, problems: [] }
	}
	const problems = []
	let chain = identity
	let n = 0
	for await (const [name, value] of indexed.iterator({ gte: key(0), lt: 'message.' })) {
		n += 1
		chain = next(chain, n)
		if (name !== key(n) || !value.equals(chain)) {
			problems.push(`the chain breaks at ${name}`)
			break
		}
	}
	const last = number(await indexed.get('last')) ?? 0
	if (problems.length === 0 && n !== last) {
		problems.push(`${n} messages are there, ${last} were written`)
	}
	// It is written second, so a process that was killed may leave it one message behind.
	const seen = number(await local.get('last')) ?? 0
	if (seen !== last && seen !== last - 1) {
		problems.push(`Local Storage ends at message ${seen}, IndexedDB at ${last}`)
	}
	return {
		identity: createHash('sha256').update(identity).digest('hex'),
		messages: last,
		last_words: number(await indexed.get('last-words')),
		problems
	}
}

function size() {
	const entries = readdirSync(userData, { withFileTypes: true, recursive: true })
	return entries.filter(entry => entry.isFile()).reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)
}

async function grow(bytes) {
	// A database rewrites itself at its own time, so what it takes is known only afterwards.
	for (let lacking; (lacking = bytes - size()) > 0; ) {
		const rows = Array.from({ length: Math.ceil(Math.min(lacking, 4 << 20) / BULK_ROW) })
		await indexed.batch(rows.map(() => ({ type: 'put', key: `bulk-${randomBytes(8).toString('hex')}`, value: randomBytes(BULK_ROW) })))
	}
	return { size: size() }
}

const requests = {
	open: async () => ({ logged_in: (await indexed.get('identity')) !== undefined }),
	scan: async () => {
		await indexed.put('identity', randomBytes(32))
		return {}
	},
	send: async () => ({ n: await advance() }),
	state,
	grow: ({ bytes }) => grow(bytes)
}

let tail = Promise.resolve()
function enqueue(work) {
	const result = tail.then(work)
	tail = result.catch(() => {})
	return result
}

let ending = false
function end() {
	if (ending) {
		return
	}
	ending = true
	enqueue(async () => {
		if (await indexed.get('identity')) {
			const n = await advance()
			await indexed.put('last-words', Buffer.from(String(n)))
			log.info('last words', { name: 'chrome', profile: userData, n })
		}
		await indexed.close()
		await local.close()
		SINGLETONS.forEach(name => rmSync(join(userData, name), { force: true }))
		process.exit(0)
	})
}
process.on('SIGTERM', end)
process.on('SIGINT', end)

createServer(connection => {
	connection.on('error', () => {})
	connection.on('close', end)
	const lines = createInterface(connection)
	lines.on('error', () => {})
	lines.on('line', line => {
		const { id, op, ...fields } = JSON.parse(line)
		enqueue(() => requests[op](fields))
			.catch(error => ({ error: `${error.name}: ${error.message}` }))
			.then(answer => connection.write(`${JSON.stringify({ id, ...answer })}\n`))
	})
}).listen(socket)

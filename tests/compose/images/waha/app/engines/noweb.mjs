// NOWEB: the session's folder is a `useMultiFileAuthState` folder of the real Baileys library, in
// this very process. A message is one encrypted by one account and decrypted by the other through
// the library's Signal repository. The other account lives in a folder below, or outside the
// session where STAND_IN_PEER_DIR says so: then an older copy of the session shows at once.

import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

import { Account } from '../baileys/account.mjs'
import { Fleet } from '../baileys/fleet.mjs'
import { Journal } from '../baileys/journal.mjs'
import { standIn } from '../settings.mjs'

// As many pre-keys the other account has, and as many are made anew when a server would ask for more.
const FEW_PRE_KEYS = 30
const BULK_FILE = 2_500
const BULK_FILES = 4_000
const BULK_ROW = 32 * 1024

export class Noweb {
	healthy = true

	async start() {}

	login(name, folder) {
		return new Login(name, folder)
	}

	async stop() {}
}

class Login {
	#name
	#folder
	#peerFolder
	#store
	#own
	#fleet = null
	#tail = Promise.resolve()

	constructor(name, folder) {
		this.#name = name
		this.#folder = folder
		this.#peerFolder = standIn.peerFolder ? join(standIn.peerFolder, name) : join(folder, 'stand-in-peer')
	}

	get loggedIn() {
		return this.#fleet !== null
	}

	async open() {
		this.#store = new DatabaseSync(join(this.#folder, 'store.sqlite3'))
		this.#store.exec(`
			PRAGMA journal_mode = WAL;
			CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, at INTEGER);
			CREATE TABLE IF NOT EXISTS stand_in_bulk (id INTEGER PRIMARY KEY, data BLOB);
		`)
		// The library reads credentials that are absent, empty or not JSON as none, and so do we.
		if (credentials(this.#folder)?.me) {
			await this.#openAccounts()
		}
	}

	async #openAccounts() {
		this.#own = await Account.open(this.#name, 1, this.#folder, standIn.preKeys)
		const peer = await Account.open('peer', 2, this.#peerFolder, FEW_PRE_KEYS)
		this.#fleet = new Fleet([this.#own, peer], peer, FEW_PRE_KEYS, new Journal())
	}

	// Everything that moves a ratchet, one after the other.
	#enqueue(work) {
		const result = this.#tail.then(work)
		this.#tail = result.catch(() => {})
		return result
	}

	scan() {
		return this.#enqueue(() => this.#openAccounts())
	}

	send() {
		return this.#enqueue(() => this.#exchange())
	}

	async #exchange() {
		const { n, error } = await this.#fleet.exchange({})
		if (error) {
			throw new Error(`message ${n} failed: ${told(error)}`)
		}
		this.#store.prepare('INSERT OR REPLACE INTO messages VALUES (?, ?)').run(n, Date.now())
		return n
	}

	state() {
		return this.#enqueue(() => this.#state())
	}

	async #state() {
		if (!this.loggedIn) {
			return { identity: null, messages: 0, last_words: null, problems: [] }
		}
		const { failures, last_error: lastError } = await this.#fleet.state()
		const problems = await unreadable(this.#folder)
		problems.push(...(failures ? [`${failures} messages failed; the last: ${told(lastError)}`] : []))
		const checked = this.#store.prepare('PRAGMA integrity_check').all().map(row => row.integrity_check)
		problems.push(...checked.filter(line => line !== 'ok').map(line => `store.sqlite3: ${line}`))
		if (!credentials(this.#folder)?.me) {
			return { identity: null, messages: 0, last_words: null, problems: [...problems, 'creds.json holds no login'] }
		}
		// What is on disk, read by the library; what this process holds in memory proves nothing.
		const seen = await Account.open(this.#name, 1, this.#folder, 0)
		const { identity, noise, registration_id: registration, last_message: last } = await seen.state()
		seen.close()
		return {
			identity: createHash('sha256').update(`${identity} ${noise} ${registration}`).digest('hex'),
			messages: last,
			last_words: seen.creds.additionalData.last_words ?? null,
			stored: this.#store.prepare('SELECT coalesce(max(id), 0) AS n FROM messages').get().n,
			problems
		}
	}

	grow(bytes) {
		return this.#enqueue(async () => {
			// Half of it small files, as far as a real account has so many; the rest rows.
			const files = Math.min(BULK_FILES, Math.floor((bytes - (await this.#size())) / 2 / BULK_FILE))
			for (let n = 0; n < files; n++) {
				const record = JSON.stringify({ type: 'Buffer', data: randomBytes((BULK_FILE * 3) / 4).toString('base64') })
				await writeFile(join(this.#folder, `sender-key-${n}@g.us--4915100000002--0.json`), record)
			}
			const insert = this.#store.prepare('INSERT INTO stand_in_bulk (data) VALUES (?)')
			for (let lacking; (lacking = bytes - (await this.#size())) > 0; ) {
				this.#store.exec('BEGIN')
				for (let row = 0; row <= lacking / BULK_ROW; row++) {
					insert.run(randomBytes(BULK_ROW))
				}
				this.#store.exec('COMMIT; PRAGMA wal_checkpoint(TRUNCATE)')
			}
			return { size: await this.#size() }
		})
	}

	// The database by its pages: its WAL may hold some of them twice.
	async #size() {
		const { pages } = this.#store.prepare('SELECT page_count * page_size AS pages FROM pragma_page_count, pragma_page_size').get()
		return pages + (await sizeOfFiles(this.#folder))
	}

	lastWords() {
		return this.#enqueue(async () => {
			const n = await this.#exchange()
			this.#own.creds.additionalData.last_words = n
			await this.#own.saveCreds()
			return n
		})
	}

	close() {
		return this.#enqueue(async () => {
			await this.#fleet?.close()
			this.#fleet = null
			this.#store.close()
		})
	}

	async erase() {
		const names = (await readdir(this.#folder)).filter(name => !name.startsWith('.waha'))
		await Promise.all([...names.map(name => join(this.#folder, name)), this.#peerFolder].map(path => rm(path, { recursive: true, force: true })))
	}
}

const told = ({ step, name, message, causes }) => [`${step}: ${name}: ${message}`, ...causes].join('; ')

function credentials(folder) {
	try {
		return JSON.parse(readFileSync(join(folder, 'creds.json'), 'utf8'))
	} catch {
		return null
	}
}

// Of the files that are no JSON the first few: the library takes them for absent, without a word.
async function unreadable(folder) {
	const problems = []
	for (const name of await readdir(folder)) {
		if (name.endsWith('.json')) {
			try {
				JSON.parse(await readFile(join(folder, name), 'utf8'))
			} catch (error) {
				problems.push(`${name}: ${error.message}`)
			}
		}
	}
	return problems.slice(0, 3)
}

async function sizeOfFiles(folder) {
	const entries = await readdir(folder, { withFileTypes: true, recursive: true })
	const files = entries.filter(entry => entry.isFile() && !entry.name.startsWith('store.sqlite3'))
	const sizes = await Promise.all(files.map(async entry => (await stat(join(entry.parentPath, entry.name))).size))
	return sizes.reduce((sum, size) => sum + size, 0)
}

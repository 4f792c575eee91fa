// `waha.sqlite3`: which sessions there are, and which of them this worker ran last.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

export class Store {
	#db
	#worker

	constructor(folder, worker) {
		mkdirSync(folder, { recursive: true })
		this.#worker = worker
		this.#db = new DatabaseSync(join(folder, 'waha.sqlite3'))
		this.#db.exec(`
			PRAGMA journal_mode = WAL;
			PRAGMA busy_timeout = 5000;
			CREATE TABLE IF NOT EXISTS session_config (session_name TEXT PRIMARY KEY, config TEXT);
			CREATE TABLE IF NOT EXISTS me (session_name TEXT PRIMARY KEY, data TEXT);
			CREATE TABLE IF NOT EXISTS session_worker (session_name TEXT PRIMARY KEY, worker TEXT);
			CREATE TABLE IF NOT EXISTS api_key (id TEXT PRIMARY KEY, data TEXT);
		`)
	}

	#run(sql, ...values) {
		this.#db.prepare(sql).run(...values)
	}

	sessions() {
		return this.#db.prepare('SELECT session_name AS name, config FROM session_config ORDER BY session_name').all()
	}

	assigned() {
		const rows = this.#db.prepare('SELECT session_name AS name FROM session_worker WHERE worker = ? ORDER BY session_name').all(this.#worker)
		return rows.map(row => row.name)
	}

	create(name, config) {
		this.#run('INSERT INTO session_config VALUES (?, ?)', name, JSON.stringify(config))
	}

	assign(name) {
		this.#run('INSERT OR REPLACE INTO session_worker VALUES (?, ?)', name, this.#worker)
	}

	release(name) {
		this.#run('DELETE FROM session_worker WHERE session_name = ?', name)
	}

	setMe(name, me) {
		this.#run('INSERT OR REPLACE INTO me VALUES (?, ?)', name, JSON.stringify(me))
	}

	me(name) {
		const row = this.#db.prepare('SELECT data FROM me WHERE session_name = ?').get(name)
		return row ? JSON.parse(row.data) : null
	}

	forgetMe(name) {
		this.#run('DELETE FROM me WHERE session_name = ?', name)
	}

	close() {
		this.#db.close()
	}
}

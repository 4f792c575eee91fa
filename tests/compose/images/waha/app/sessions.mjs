// The sessions, their statuses, and who starts and stops them.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import { log } from './log.mjs'

const NAME = /^[\w-]{1,54}$/

export class Refused extends Error {
	constructor(status, message) {
		super(message)
		this.status = status
	}
}

export class Sessions {
	#settings
	#engine
	#store
	#all = new Map()

	constructor(settings, engine, store) {
		this.#settings = settings
		this.#engine = engine
		this.#store = store
		for (const { name, config } of store.sessions()) {
			this.#all.set(name, this.#session(name, JSON.parse(config)))
		}
	}

	#session(name, config) {
		return new Session({ name, config, folder: join(this.#settings.sessionsFolder, name), engine: this.#engine, store: this.#store })
	}

	// What this worker ran when it was last stopped from outside.
	async restart() {
		const names = this.#settings.worker.restartSessions ? this.#store.assigned() : []
		log.info('starting the sessions of this worker', { worker: this.#settings.worker.id, sessions: names })
		await Promise.all(names.flatMap(name => this.#all.get(name)?.start() ?? []))
	}

	list(all) {
		return [...this.#all.values()].filter(session => all || session.status !== 'STOPPED')
	}

	get(name) {
		const session = this.#all.get(name)
		if (!session) {
			throw new Refused(404, `Session "${name}" does not exist`)
		}
		return session
	}

	async create({ name = 'default', start = true, config = null }) {
		if (!NAME.test(name)) {
			throw new Refused(400, 'name: letters, digits, - and _ only')
		}
		if (this.#all.has(name)) {
			throw new Refused(422, `Session "${name}" already exists`)
		}
		const session = this.#session(name, config)
		this.#all.set(name, session)
		this.#store.create(name, config)
		if (start) {
			await session.start()
		}
		return session
	}

	fail(reason) {
		this.list(false).forEach(session => session.fail(reason))
	}

	// All at once, and each stays recorded as this worker's: the next start takes them up again.
	async stopBySignal() {
		await Promise.all(this.list(false).map(session => session.stop('signal', this.#settings.standIn.stopSeconds)))
		await this.#engine.stop()
	}
}

export class Session {
	#folder
	#engine
	#store
	#login = null
	#perSecond = 0
	#found = false
	status = 'STOPPED'

	constructor({ name, config, folder, engine, store }) {
		this.name = name
		this.config = config
		this.#folder = folder
		this.#engine = engine
		this.#store = store
	}

	#become(status) {
		log.info('session status', { session: this.name, from: this.status, to: status })
		this.status = status
	}

	get me() {
		return this.status === 'WORKING' ? this.#store.me(this.name) : null
	}

	async start() {
		if (this.status !== 'STOPPED' && this.status !== 'FAILED') {
			throw new Refused(422, `Session "${this.name}" is already started`)
		}
		this.#become('STARTING')
		this.#store.assign(this.name)
		try {
			await mkdir(this.#folder, { recursive: true })
			await writeFile(join(this.#folder, '.waha.session.config.json'), JSON.stringify({ name: this.name, config: this.config }))
			const login = this.#engine.login(this.name, this.#folder)
			await login.open()
			this.#login = login
		} catch (error) {
			this.fail(error.message)
			return
		}
		this.problem = null
		this.#found = this.#login.loggedIn
		this.#become(this.#found ? 'WORKING' : 'SCAN_QR_CODE')
	}

	fail(reason) {
		log.error('session failed', { session: this.name, reason })
		this.#become('FAILED')
		this.problem = reason
		this.#login = null
	}

	async stop(why, seconds = 0) {
		if (this.status === 'STOPPED') {
			return
		}
		const login = this.#login
		// Messages go on coming in meanwhile, as from a socket that is still open.
		await pause(seconds * 1000)
		this.#perSecond = 0
		if (login) {
			if (why === 'signal' && login.loggedIn) {
				const n = await login.lastWords().catch(error => log.error('no last words', { session: this.name, reason: error.message }))
				if (n) {
					log.info('last words', { session: this.name, n })
				}
			}
			await login.close(why).catch(error => log.error('failed to close', { session: this.name, reason: error.message }))
		}
		this.#login = null
		this.#become('STOPPED')
		if (why !== 'signal') {
			this.#store.release(this.name)
		}
	}

	async restart() {
		await this.stop('request')
		await this.start()
	}

	async logout() {
		await this.stop('request')
		await this.#engine.login(this.name, this.#folder).erase()
		this.#store.forgetMe(this.name)
		await this.start()
	}

	#in(...statuses) {
		if (!statuses.includes(this.status)) {
			throw new Refused(422, `Session status is ${this.status}; it must be ${statuses.join(' or ')}`)
		}
		return this.#login
	}

	qr() {
		this.#in('SCAN_QR_CODE')
		return `${this.name} ${Math.floor(Date.now() / 20_000)}`
	}

	async scan() {
		await this.#in('SCAN_QR_CODE').scan()
		this.#store.setMe(this.name, { id: '4915100000001@c.us', pushName: 'bot' })
		this.#become('WORKING')
	}

	send() {
		return this.#in('WORKING').send()
	}

	// Whether the login that is there now was not there when the session was started.
	get fresh() {
		return !this.#found
	}

	async state() {
		if (!this.#login) {
			return { identity: null, messages: 0, last_words: null, problems: this.problem ? [this.problem] : [] }
		}
		return this.#login.state()
	}

	grow(bytes) {
		return this.#in('WORKING').grow(bytes)
	}

	load(perSecond) {
		this.#in('WORKING')
		const idle = this.#perSecond === 0
		this.#perSecond = perSecond
		if (idle && perSecond > 0) {
			this.#keepSending()
		}
	}

	// One after the other, at the rate or as fast as they go, up to the first that fails.
	async #keepSending() {
		let due = Date.now()
		while (this.#perSecond > 0 && this.#login) {
			try {
				await this.#login.send()
			} catch (error) {
				log.error('a message failed; no more of them', { session: this.name, reason: error.message })
				this.#perSecond = 0
			}
			due = Math.max(due + 1000 / (this.#perSecond || Infinity), Date.now())
			await pause(due - Date.now())
		}
	}
}

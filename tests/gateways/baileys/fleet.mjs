// All accounts, and who writes to whom next.

import { join } from 'node:path'

import { Account } from './account.mjs'

// After so many messages an account makes fresh pre-keys, as a server's request would have it do.
const PRE_KEY_PERIOD = 50

export class Fleet {
	#accounts
	#peer
	#preKeys
	#journal
	#failures = 0
	#lastError = null

	static async open({ dir, peerDir, count, preKeys, journal }) {
		const accounts = []
		for (let number = 1; number <= count; number++) {
			const name = `account-${number}`
			// With a peer directory the last account lives there: it is the other end of the
			// conversation, whose state no restore of ours rolls back.
			const home = peerDir && number === count ? peerDir : dir
			accounts.push(await Account.open(name, number, join(home, name), preKeys))
		}
		return new Fleet(accounts, peerDir ? accounts.at(-1) : null, preKeys, journal)
	}

	constructor(accounts, peer, preKeys, journal) {
		this.#accounts = accounts
		this.#peer = peer
		this.#preKeys = preKeys
		this.#journal = journal
		this.pairs = accounts.flatMap((a, i) => accounts.slice(i + 1).map(b => [a, b]))
		this.next = 1 + Math.max(...accounts.map(account => account.lastMessage))
	}

	get #own() {
		return this.#accounts.filter(account => account !== this.#peer)
	}

	// Whether no account in the session directory was logged in: a QR code would be on screen.
	get fresh() {
		return this.#own.every(account => account.fresh)
	}

	// The newest message that the session directory knows of.
	get lastMessage() {
		return Math.max(...this.#own.map(account => account.lastMessage))
	}

	// Takes the pairs in turn, and each pair in alternating directions, so that every message is
	// an answer: the ratchets of both sides take a new step each time.
	#route(n, { from, to }) {
		if (from && to) {
			return [this.#accounts[Number(from) - 1], this.#accounts[Number(to) - 1]]
		}
		const pair = this.pairs[n % this.pairs.length]
		return Math.floor(n / this.pairs.length) % 2 === 0 ? pair : [pair[1], pair[0]]
	}

	// One message from one account to another. An error is an outcome with a name, never hidden.
	async exchange(wanted) {
		const n = this.next++
		const [sender, receiver] = this.#route(n, wanted)
		const entry = { n, from: sender.name, to: receiver.name }
		try {
			const text = JSON.stringify(entry)
			const sealed = await sender.encryptFor(receiver, text)
			await receiver.decryptFrom(sender, sealed, text)
			await receiver.note('received', sender, n)
			await sender.note('sent', receiver, n)
			if (n % PRE_KEY_PERIOD === 0) {
				await receiver.uploadPreKeys(this.#preKeys)
			}
		} catch (error) {
			const told = { ...entry, ...(error.described ?? { step: 'files', name: error.name, message: error.message, causes: [] }) }
			this.#failures += 1
			this.#lastError = told
			this.#journal.write({ ...entry, error: told })
			return { n, error: told }
		}
		// Only now: every file that this message changed has been written by both accounts.
		this.#journal.write(entry)
		return { n }
	}

	async state() {
		return {
			fresh: this.fresh,
			last_message: this.lastMessage,
			peer_last_message: this.#peer?.lastMessage ?? null,
			failures: this.#failures,
			last_error: this.#lastError,
			accounts: await Promise.all(this.#accounts.map(account => account.state()))
		}
	}

	async close() {
		await Promise.all(this.#accounts.map(account => account.saveCreds()))
		this.#accounts.forEach(account => account.close())
	}
}

// One document for each key, as the MongoDB auth states for Baileys keep them: the file's name is
// the document's key, and the parsed JSON its value.
//
//   node keys.mjs restore | upload
//
// MODE=each sends one operation a key, CONCURRENCY at a time, which is what those libraries do;
// MODE=bulk sends them in batches, which is the most that this layout can give.

import path from 'node:path'

import fs from 'fs-extra'
import { MongoClient } from 'mongodb'

const { MONGO_URL, SESSIONS_PATH: root, MODE: mode = 'each' } = process.env
const concurrency = Number(process.env.CONCURRENCY ?? '16')
const BATCH = 1000

const client = await new MongoClient(MONGO_URL, { appName: 'keys' }).connect()
const keys = client.db().collection('keys')

async function each(items, work) {
	const rest = items[Symbol.iterator]()
	const worker = async () => {
		for (const item of rest) {
			await work(item)
		}
	}
	await Promise.all(Array.from({ length: concurrency }, worker))
}

function batches(items) {
	const count = Math.ceil(items.length / BATCH)
	return Array.from({ length: count }, (_, n) => items.slice(n * BATCH, (n + 1) * BATCH))
}

async function write({ _id, value }) {
	const target = path.join(root, _id)
	await fs.ensureDir(path.dirname(target))
	await fs.writeFile(target, JSON.stringify(value))
}

async function read(file) {
	return { _id: path.relative(root, file), value: JSON.parse(await fs.readFile(file, 'utf8')) }
}

async function restore() {
	if (mode === 'bulk') {
		await each(batches(await keys.find({}).toArray()), documents => Promise.all(documents.map(write)))
	} else {
		// A gateway knows the names of its keys, and asks for one after the other.
		const names = await keys.distinct('_id')
		await each(names, async _id => write(await keys.findOne({ _id })))
	}
}

async function upload() {
	const entries = await fs.readdir(root, { recursive: true, withFileTypes: true })
	const files = entries.filter(entry => entry.isFile()).map(entry => path.join(entry.parentPath, entry.name))
	if (mode === 'bulk') {
		await each(batches(files), async names => {
			await keys.insertMany(await Promise.all(names.map(read)), { ordered: false })
		})
	} else {
		await each(files, async name => {
			const document = await read(name)
			await keys.replaceOne({ _id: document._id }, document, { upsert: true })
		})
	}
}

switch (process.argv[2]) {
	case 'restore':
		await restore()
		break
	case 'upload':
		await upload()
		break
	default:
		console.error('usage: keys.mjs restore | upload')
		process.exit(64)
}
await client.close()

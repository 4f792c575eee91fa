// A sidecar that keeps a directory in MongoDB file by file, as it is usually written: whole files
// in GridFS, a watcher, a debounce. It is what sessionkeep is measured against, so it is written
// to be good at it: bounded concurrency, one connection pool, no starving of busy files, and a
// flush when it is told to end.
//
//   node sidecar.mjs restore | upload | watch
//
// MONGO_URL and SESSIONS_PATH say from where to where; CONCURRENCY how many files at a time (16).

import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'

import chokidar from 'chokidar'
import fs from 'fs-extra'
import { GridFSBucket, MongoClient } from 'mongodb'

const { MONGO_URL, SESSIONS_PATH: root } = process.env
const concurrency = Number(process.env.CONCURRENCY ?? '16')
const debounce = Number(process.env.DEBOUNCE_MS ?? '1000')

const client = await new MongoClient(MONGO_URL, { appName: 'sidecar' }).connect()
const bucket = new GridFSBucket(client.db())

// Runs `work` on all items, so many at a time.
async function each(items, work) {
	const rest = items[Symbol.iterator]()
	const worker = async () => {
		for (const item of rest) {
			await work(item)
		}
	}
	await Promise.all(Array.from({ length: concurrency }, worker))
}

async function filesBelow(dir) {
	const entries = await fs.readdir(dir, { recursive: true, withFileTypes: true })
	return entries.filter(entry => entry.isFile()).map(entry => path.join(entry.parentPath, entry.name))
}

async function download(file) {
	const target = path.join(root, file.filename)
	await fs.ensureDir(path.dirname(target))
	await pipeline(bucket.openDownloadStream(file._id), fs.createWriteStream(target))
}

async function removeRevisions(filter) {
	for await (const old of bucket.find(filter, { projection: { _id: 1 } })) {
		// Two uploads of one file may both find the same older revision.
		await bucket.delete(old._id).catch(() => {})
	}
}

async function upload(file) {
	const filename = path.relative(root, file)
	const { mtimeMs } = await fs.stat(file)
	const sink = bucket.openUploadStream(filename, { metadata: { mtimeMs } })
	await pipeline(fs.createReadStream(file), sink)
	await removeRevisions({ filename, _id: { $ne: sink.id } })
}

async function restore() {
	// The newest revision of each name wins.
	const newest = new Map()
	for await (const file of bucket.find({}).sort({ uploadDate: 1 })) {
		newest.set(file.filename, file)
	}
	await each(newest.values(), download)
	return newest.size
}

async function uploadAll() {
	const files = await filesBelow(root)
	await each(files, upload)
	return files.length
}

async function watch() {
	const waiting = new Map()
	const running = new Set()
	const ready = []

	// A second after the first change of a file, however busy it is: a debounce that begins anew at
	// each change would never upload a file that is written twice a second.
	const changed = file => {
		if (!waiting.has(file)) {
			waiting.set(file, setTimeout(() => take(file), debounce))
		}
	}
	const take = file => {
		clearTimeout(waiting.get(file))
		waiting.delete(file)
		ready.push(file)
		next()
	}
	const next = () => {
		while (running.size < concurrency && ready.length > 0) {
			const file = ready.shift()
			const work = upload(file)
				.catch(error => error.code === 'ENOENT' || console.error(`upload of ${file} failed:`, error))
				.finally(() => {
					running.delete(work)
					next()
				})
			running.add(work)
		}
	}

	const watcher = chokidar.watch(root, { ignoreInitial: true })
	watcher.on('add', changed)
	watcher.on('change', changed)
	watcher.on('unlink', file => removeRevisions({ filename: path.relative(root, file) }))
	process.on('SIGTERM', async () => {
		// Events that the kernel has reported are still on their way through the event loop.
		await delay(100)
		await watcher.close()
		for (const file of [...waiting.keys()]) {
			take(file)
		}
		while (running.size > 0) {
			await Promise.all(running)
		}
		await client.close()
		console.log('flushed')
		process.exit(0)
	})
	await new Promise(resolve => watcher.on('ready', resolve))
	console.log('watching')
}

switch (process.argv[2]) {
	case 'restore':
		console.log(`restored ${await restore()} files`)
		await client.close()
		break
	case 'upload':
		console.log(`uploaded ${await uploadAll()} files`)
		await client.close()
		break
	case 'watch':
		await watch()
		break
	default:
		console.error('usage: sidecar.mjs restore | upload | watch')
		process.exit(64)
}

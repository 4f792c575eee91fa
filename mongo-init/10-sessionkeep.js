// The application's user, and the collections that it writes, with what they may hold. MongoDB's
// image runs this once, when its volume is new; `make mongo-init` runs it again, which is safe at
// any time: it brings everything to what .env says, and takes nothing away.
//
// Values come from the environment, so that no password stands in a command line.

/* global db, print, process, quit */

const required = name => {
	const value = process.env[name]
	if (!value) {
		print(`mongo-init: ${name} is not set; it comes from .env, which "make env" writes`)
		quit(1)
	}
	return value
}

const username = required('MONGO_APP_USERNAME')
const password = required('MONGO_APP_PASSWORD')
const database = required('MONGO_DATABASE')

const admin = db.getSiblingDB('admin')
admin.auth(required('MONGO_INITDB_ROOT_USERNAME'), required('MONGO_INITDB_ROOT_PASSWORD'))

// One database, and nothing else in this server.
const rights = { pwd: password, roles: [{ role: 'readWrite', db: database }] }
if (admin.getUser(username)) {
	admin.updateUser(username, rights)
} else {
	admin.createUser({ user: username, ...rights })
}

// What the archive's format 1 needs to be read back. A later format is let through: it need not
// look like this one, and an old rule must not refuse a newer program. So is the probe that
// `sessionkeep doctor` writes and deletes, which has format 0.
const text = { bsonType: 'string' }
const count = { bsonType: ['int', 'long'], minimum: 0 }
const otherFormat = { required: ['format'], properties: { format: { bsonType: ['int', 'long'], not: { enum: [1] } } } }

const commit = {
	bsonType: 'object',
	required: ['_id', 'format'],
	properties: { _id: { bsonType: 'object', required: ['a', 's'], properties: { a: text, s: count } } },
	anyOf: [
		otherFormat,
		{
			required: ['history', 'id', 'kind', 'instance', 'epoch', 'time', 'base', 'parent', 'root', 'packs', 'body_hash', 'digest', 'size', 'body'],
			properties: {
				kind: { enum: ['barrier', 'change', 'checkpoint'] },
				epoch: count,
				base: count,
				time: { bsonType: 'date' },
				packs: { bsonType: 'array', items: text },
				size: count,
				body: { bsonType: 'binData' }
			}
		}
	]
}

const lease = {
	bsonType: 'object',
	required: ['_id', 'format'],
	properties: { _id: text },
	anyOf: [
		otherFormat,
		{
			required: ['instance', 'epoch', 'since', 'expires'],
			properties: { instance: text, epoch: count, since: { bsonType: 'date' }, expires: { bsonType: 'date' }, waiting: { bsonType: 'array', maxItems: 100, items: { bsonType: 'object' } } }
		}
	]
}

const packFile = {
	bsonType: 'object',
	required: ['_id'],
	properties: { _id: text },
	anyOf: [
		otherFormat,
		{
			required: ['length', 'chunkSize', 'uploadDate', 'metadata'],
			properties: {
				length: count,
				chunkSize: { bsonType: ['int', 'long'], minimum: 1 },
				uploadDate: { bsonType: 'date' },
				metadata: { bsonType: 'object', required: ['archive', 'format'], properties: { archive: text } }
			}
		}
	]
}

const packChunk = {
	bsonType: 'object',
	required: ['_id', 'files_id', 'n'],
	properties: { files_id: text, n: count, data: { bsonType: 'binData' } }
}

const target = db.getSiblingDB(database)
const present = new Set(target.getCollectionNames())
const collection = (name, schema, indexes) => {
	const rules = { validator: { $jsonSchema: schema }, validationLevel: 'strict', validationAction: 'error' }
	if (present.has(name)) {
		target.runCommand({ collMod: name, ...rules })
	} else {
		target.createCollection(name, rules)
	}
	for (const [keys, options] of indexes) {
		target.getCollection(name).createIndex(keys, options)
	}
}

collection('commits', commit, [])
collection('leases', lease, [])
collection('packs.files', packFile, [[{ 'metadata.archive': 1 }, {}], [{ filename: 1, uploadDate: 1 }, {}]])
collection('packs.chunks', packChunk, [[{ files_id: 1, n: 1 }, { unique: true }]])

// Whoever waits for a lease is told by a few bytes at the end of this, which the server follows for it.
if (!present.has('bells')) {
	target.createCollection('bells', { capped: true, size: 16384 })
}

print(`mongo-init: user ${username} may read and write the database ${database}, and nothing else`)

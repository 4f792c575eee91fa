// What backup.sh asks the database itself; run by mongosh. Everything comes in by the environment,
// so that no password is in an argument list.
//
//   DO=describe  "server VERSION", then "COLLECTION DOCUMENTS" for each collection of DATABASE
//   DO=occupied  the names of DATABASE's collections that hold documents
//   DO=grant     readWrite on DATABASE, and on nothing further, for MONGO_APP_USERNAME
//   DO=drop      drops DATABASE

const { DO, DATABASE, MONGO_URL, MONGO_APP_USERNAME } = process.env

function collections(database) {
  return database
    .getCollectionInfos({ type: 'collection' }, { nameOnly: true })
    .map(({ name }) => name)
    .filter(name => !name.startsWith('system.'))
    .sort()
}

const actions = {
  describe(database) {
    print(`server ${database.version()}`)
    for (const name of collections(database)) {
      print(`${name} ${database.getCollection(name).estimatedDocumentCount()}`)
    }
  },
  occupied(database) {
    collections(database)
      .filter(name => database.getCollection(name).findOne({}, { _id: 1 }))
      .forEach(name => print(name))
  },
  grant(database) {
    database.getSiblingDB('admin').grantRolesToUser(MONGO_APP_USERNAME, [{ role: 'readWrite', db: DATABASE }])
  },
  drop(database) {
    database.dropDatabase()
  }
}

try {
  actions[DO](new Mongo(MONGO_URL).getDB(DATABASE))
} catch (error) {
  // The message alone: neither it nor the address in it holds a password, and a stack says nothing to an operator.
  process.stderr.write(`${error.message}\n`)
  quit(1)
}

// Grafana's part in the stack's tests: it ends where the original would not start (no password, a provisioned file
// that cannot be read, a data directory that cannot be written), and answers for what it was given.
//
//   GET /api/health                                       as the health check asks
//   GET /api/search                                       the provisioned dashboards, with user and password
//   GET /api/datasources/proxy/uid/NAME/api/v1/query?…    asks that data source

import { createServer } from 'node:http'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const password = process.env.GF_SECURITY_ADMIN_PASSWORD
if (!password) throw new Error('GF_SECURITY_ADMIN_PASSWORD is not set')
writeFileSync('/var/lib/grafana/grafana.db', 'a stand-in writes here, as the original does\n')

const provisioning = '/etc/grafana/provisioning'
const texts = kind => readdirSync(join(provisioning, kind)).map(name => readFileSync(join(provisioning, kind, name), 'utf8'))
const value = (text, key) => text.match(new RegExp(`^[ -]*${key}: *(.+)$`, 'm'))?.[1]

const sources = new Map(texts('datasources').map(text => [value(text, 'uid'), value(text, 'url')]))
const dashboards = texts('dashboards')
  .map(text => value(text, 'path'))
  .flatMap(path => readdirSync(path).map(name => JSON.parse(readFileSync(join(path, name), 'utf8'))))
const home = process.env.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH
if (home) JSON.parse(readFileSync(home, 'utf8'))

const server = createServer(async (request, response) => {
  const answer = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  const { pathname, search } = new URL(request.url, 'http://localhost')
  if (pathname === '/api/health') return answer(200, { database: 'ok' })
  const basic = Buffer.from(`admin:${password}`).toString('base64')
  if (request.headers.authorization !== `Basic ${basic}`) return answer(401, { message: 'Unauthorized' })
  if (pathname === '/api/search') return answer(200, dashboards.map(({ uid, title }) => ({ uid, title, type: 'dash-db' })))
  const [, uid, path] = pathname.match(/^\/api\/datasources\/proxy\/uid\/([^/]+)(\/.*)$/) ?? []
  if (!sources.has(uid)) return answer(404, { message: 'Not found' })
  try {
    const asked = await fetch(sources.get(uid) + path + search)
    answer(asked.status, await asked.json())
  } catch (error) {
    answer(502, { message: String(error.cause ?? error) })
  }
})
server.listen(3000)
process.on('SIGTERM', () => process.exit(0))

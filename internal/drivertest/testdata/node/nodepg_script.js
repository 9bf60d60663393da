'use strict'
// node-postgres (pg) with its cursors and COPY streams, as its users use it.

const { Client, Pool, types } = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')
const { pipeline } = require('stream/promises')
const { Readable, Writable } = require('stream')
const { say, md5, refused, run, ssl, wrongSSL, nodePorts, sleep, big } = require('./transcript')

// Dates are shown as the server writes them: the local zone is not the matter.
for (const oid of [1082, 1114, 1184]) types.setTypeParser(oid, text => text)

const settings = more => {
  const { PGHOST: host, PGPORT: port, PGDATABASE: database, PGUSER: user, PGPASSWORD: password } = process.env
  return { host, port: Number(port), database, user, password, ssl: ssl(), enableChannelBinding: true, connectionTimeoutMillis: 20000, ...more }
}

async function connect (more) {
  const client = new Client(settings(more))
  client.on('error', () => {}) // of connections that are ended on purpose
  await client.connect()
  return client
}

const rows = async (client, text, values) => (await client.query(text, values)).rows

// waitRunning returns when a statement that holds the mark runs, on whatever node.
async function waitRunning (mark) {
  const nodes = await Promise.all(nodePorts.map(port => connect({ host: '127.0.0.1', port, user: 'postgres', ssl: false, enableChannelBinding: false })))
  const text = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid() AND position($1 in query) > 0"
  for (;;) {
    const found = await Promise.all(nodes.map(node => rows(node, text, [mark])))
    if (found.some(f => f.length)) break
    await sleep(10)
  }
  await Promise.all(nodes.map(node => node.end()))
}

async function connection () {
  const client = new Client(settings())
  const parameters = {}
  client.connection.on('parameterStatus', m => { parameters[m.parameterName] = m.parameterValue })
  await client.connect()
  for (const name of ['server_version', 'client_encoding', 'DateStyle', 'TimeZone', 'is_superuser', 'standard_conforming_strings', 'in_hot_standby']) {
    say(name, parameters[name])
  }
  say(client.connection.stream.constructor.name, await rows(client, 'SELECT current_user, 1 + 1 AS two'))
  await client.end()
  for (const more of [{ password: 'wrong' }, { user: 'nobody_here' }, { database: 'no_such_database' }]) await refused(connect(more))
  await connect({ ssl: wrongSSL() }).then(() => say('FAIL: connected'), e => say('refused here', /SIGN|VERIFY/.test(e.code)))
  const other = await connect({ application_name: 'mine', options: '-c search_path=a,b', statement_timeout: 12345, lock_timeout: 77 })
  for (const name of ['application_name', 'search_path', 'statement_timeout', 'lock_timeout']) say(await rows(other, 'SHOW ' + name))
  await other.end()
}

async function typesRoundTrip () {
  const client = await connect()
  for (const binary of [false, true]) {
    for (const [name, value] of [
      ['bool', true], ['int2', -32768], ['int4', 2147483647], ['int8', '-9223372036854775808'], ['numeric', '-12345678901234567890.123456789'],
      ['float4', 1.5], ['float8', 0.1], ['text', ''], ['text', "h\u00e9llo \u4e16\u754c \u{1F600} 'quoted' \\ $1 ?"], ['char(5)', 'abc'],
      ['bytea', Buffer.from([0, 1, 254, 255])], ['date', '2024-02-29'], ['timestamp', '1999-12-31 23:59:59.123456'], ['timestamptz', '2024-07-01 12:00:00+02'],
      ['interval', '1 day 2 hours'], ['uuid', '12345678-1234-5678-1234-567812345678'], ['jsonb', { a: [1, null, 'x'] }], ['int4[]', [1, 2, 3]],
      ['text[]', ['a', null, 'q"\\,{}']], ['int4range', '[1,10)'], ['inet', '192.168.0.1'], ['text', null]
    ]) {
      if (binary && !['bool', 'text'].includes(name)) continue // the driver misreads others
      const result = await client.query({ text: `SELECT $1::${name} AS v, pg_typeof($1::${name})::text AS t`, values: [value], binary })
      const v = result.rows[0].v
      say(binary ? 'binary' : 'text', name, Buffer.isBuffer(v) ? v.toString('hex') : v, result.rows[0].t, result.fields.map(f => [f.name, f.dataTypeID, f.dataTypeSize, f.format]))
    }
  }
  say(await client.query({ text: 'SELECT 1 AS a, 2 AS a', rowMode: 'array' }).then(r => r.rows))
  await client.end()
}

async function prepared () {
  const [first, second] = [await connect(), await connect()]
  await first.query("CREATE TABLE p AS SELECT i AS id, 'v' || i AS v FROM generate_series(1, 100) i")
  for (let i = 1; i <= 40; i++) {
    await first.query('BEGIN')
    const a = await first.query({ name: 'mine', text: 'SELECT v FROM p WHERE id = $1', values: [i] })
    const b = await second.query({ name: 'mine', text: 'SELECT $1::int + 1 AS n', values: [i] })
    await first.query({ name: 'update', text: 'UPDATE p SET v = v WHERE id = $1', values: [i] })
    await first.query('COMMIT')
    if (a.rows[0].v !== 'v' + i || b.rows[0].n !== i + 1) say('FAIL', i, a.rows, b.rows)
  }
  await refused(first.query({ name: 'mine', text: 'SELECT 1' })) // the driver's own refusal: another text
  const star = { name: 'star', text: 'SELECT * FROM p WHERE id = $1', values: [1] }
  say(await rows(first, star))
  await first.query('ALTER TABLE p ADD COLUMN w int DEFAULT 7')
  await refused(first.query(star))
  say(await rows(first, { name: 'mine', text: 'SELECT v FROM p WHERE id = $1', values: [2] }))
  await refused(first.query({ name: 'broken', text: 'SELECT * FROM missing WHERE id = $1', values: [1] }))
  say(await rows(first, 'SELECT count(*) FROM p'))
  await first.end()
  await second.end()
}

async function transactions () {
  const client = await connect()
  await client.query('CREATE TABLE tx (id int PRIMARY KEY)')
  for (const [text, values] of [
    ['BEGIN'], ['INSERT INTO tx VALUES ($1)', [1]], ['SAVEPOINT a'], ['INSERT INTO tx VALUES ($1)', [1]], ['SELECT 1'], ['ROLLBACK TO a'],
    ['INSERT INTO tx VALUES ($1)', [2]], ['COMMIT'], ['BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY'], ['SHOW transaction_isolation'],
    ['INSERT INTO tx VALUES ($1)', [3]], ['ROLLBACK'], ['BEGIN'], ['SELECT 1/0'], ['COMMIT'], ['SELECT array_agg(id ORDER BY id) FROM tx']
  ]) {
    try {
      const result = await client.query(text, values)
      say(text, result.command, result.rowCount, result.rows)
    } catch (e) {
      say(text, e.code, e.message)
    }
  }
  await client.end()
}

async function errors () {
  const client = await connect()
  await client.query('CREATE TABLE er (id int PRIMARY KEY, v int NOT NULL)')
  for (const [text, values] of [
    ['SELEC 1'], ['SELECT 1/0'], ['SELECT * FROM missing'], ['INSERT INTO er VALUES ($1, $2)', [1, null]], ['INSERT INTO er VALUES ($1, $2)', ['x', 1]],
    ['SELECT $1::int, $2::int', [1]], ["DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'XY123', DETAIL = 'd', HINT = 'h'; END $$"], ['SELECT 1; SELECT 1/0']
  ]) {
    await refused(client.query(text, values))
    say(await rows(client, 'SELECT count(*) FROM er'))
  }
  const notices = []
  client.on('notice', n => notices.push([n.severity, n.code, n.message]))
  await client.query("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
  say(notices)
  const several = await client.query('SELECT 1 AS a; INSERT INTO er VALUES (1, 1); SELECT 2 AS b, 3 AS c')
  say(several.map(r => [r.command, r.rowCount, r.rows]))
  const nothing = await client.query('')
  say(nothing.command, nothing.rows)
  // Queued without waiting: each is sent when the one before is answered.
  const queued = await Promise.allSettled([1, 2, 0, 4].map(i => client.query('SELECT 12 / $1::int AS v', [i])))
  say(queued.map(q => q.value ? q.value.rows : q.reason.code))
  await client.end()
}

async function copies () {
  const client = await connect()
  await client.query('CREATE TABLE cp (id int, v text)')
  const put = (text, chunks) => pipeline(Readable.from(chunks), client.query(copy.from(text)))
  await put('COPY cp FROM STDIN', Array.from({ length: 5000 }, (_, i) => `${i}\tv${i}\n`))
  await put('COPY cp FROM STDIN (FORMAT csv)', ['9000,"a\nb"\n'])
  await refused(put('COPY cp FROM STDIN', ['x\ty\n']))
  await refused(put('COPY missing FROM STDIN', ['x\ty\n']))
  async function get (text) {
    const chunks = []
    await pipeline(client.query(copy.to(text)), new Writable({ write (chunk, _, done) { chunks.push(chunk); done() } }))
    const all = Buffer.concat(chunks)
    return [all.length, md5(all)]
  }
  say(await get('COPY (SELECT * FROM cp ORDER BY id) TO STDOUT'), await get('COPY (SELECT * FROM cp ORDER BY id) TO STDOUT (FORMAT binary)'))
  await refused(get('COPY missing TO STDOUT'))
  await refused(get('COPY (SELECT 1 / (5000 - i) FROM generate_series(1, 6000) i) TO STDOUT'))
  say(await rows(client, 'SELECT count(*), sum(id) FROM cp'))
  await client.end()
}

async function cancel () {
  const [client, canceller] = [await connect(), new Client(settings())]
  const sleeping = refused(client.query('SELECT pg_sleep(20) /* cancel me */'))
  await waitRunning('cancel me')
  // A server signals twice for one request; who goes on before the second is hit by it.
  const done = new Promise(resolve => canceller.connection.once('end', resolve))
  canceller.cancel(client, client.activeQuery || client._activeQuery)
  await sleeping
  await done
  say(await rows(client, 'SELECT 1 AS one'))
  await client.query('SET statement_timeout = 20')
  await refused(client.query('SELECT pg_sleep(20)'))
  await client.query('RESET statement_timeout')
  say(await rows(client, 'SELECT 2 AS two'))
  await client.end()
}

async function listen () {
  const [listener, sender] = [await connect(), await connect()]
  const got = []
  let wake = () => {}
  listener.on('notification', n => { got.push([n.channel, n.payload]); wake() })
  const hear = async count => { while (got.length < count) await new Promise(resolve => { wake = resolve }) }
  await listener.query('LISTEN news')
  await listener.query('LISTEN "Odd Channel"')
  await sender.query("NOTIFY news, 'one'")
  await hear(1)
  await sender.query('BEGIN')
  await sender.query('SELECT pg_notify($1, $2)', ['Odd Channel', 'two'])
  await sender.query('COMMIT')
  await hear(2)
  say(await rows(listener, 'SELECT 1 AS one'))
  await listener.query("NOTIFY news, 'self'")
  await hear(3)
  await listener.query('UNLISTEN news')
  await sender.query("NOTIFY news, 'unheard'")
  await sender.query("NOTIFY \"Odd Channel\", 'last'")
  await hear(4)
  say(got)
  await listener.end()
  await sender.end()
}

async function churn () {
  const pool = new Pool(settings({ max: 20, maxUses: 3 }))
  pool.on('error', () => {})
  await pool.query('CREATE TABLE ch (a int)')
  const results = await Promise.allSettled(Array.from({ length: 300 }, async (_, i) => {
    await pool.query('INSERT INTO ch VALUES ($1)', [i])
    if (i % 5 === 0) {
      const client = await connect()
      await client.query('BEGIN; INSERT INTO ch VALUES (-1)')
      client.connection.stream.destroy() // without a word, in a transaction
    }
  }))
  say('failures', results.filter(r => r.reason).map(r => String(r.reason)))
  const client = await pool.connect()
  await client.query('BEGIN')
  say(await rows(client, 'SELECT count(*), sum(a) FROM ch'))
  await client.query('COMMIT')
  client.release()
  await pool.end()
}

async function cursors () {
  const client = await connect()
  for (const begin of ['BEGIN', null]) {
    if (begin) await client.query(begin)
    const cursor = client.query(new Cursor('SELECT i FROM generate_series(1, $1::int) i', [1000]))
    say((await cursor.read(10)).length, (await cursor.read(300))[0], (await cursor.read(5000)).length, (await cursor.read(10)).length)
    await cursor.close()
    const left = client.query(new Cursor('SELECT i FROM generate_series(1, 100000) i'))
    say(await left.read(1))
    await left.close() // in the middle
    say(await rows(client, 'SELECT 1 AS one'))
    const broken = client.query(new Cursor('SELECT 1 / (50 - i) FROM generate_series(1, 100) i'))
    say((await broken.read(20)).length)
    await refused(broken.read(100))
    if (begin) await client.query('ROLLBACK')
    say(await rows(client, 'SELECT 2 AS two'))
  }
  await client.end()
}

async function large () {
  const client = await connect()
  await client.query('CREATE TABLE lg (t text)')
  await client.query('ALTER TABLE lg ALTER t SET STORAGE EXTERNAL')
  await client.query('INSERT INTO lg VALUES ($1)', ['0123456789'.repeat(big / 10)])
  const [{ t }] = await rows(client, 'SELECT t FROM lg')
  say(t.length, md5(t))
  await client.query('TRUNCATE lg')
  await client.end()
}

async function sessionState () {
  const [client, ...others] = await Promise.all(Array.from({ length: 4 }, () => connect()))
  const stir = async () => {
    for (const other of others) await other.query('BEGIN; SELECT 1')
    for (const other of others) await other.query('COMMIT')
  }
  await client.query("SET TimeZone = 'Asia/Tokyo'; SET work_mem = '5MB'")
  await client.query('CREATE TEMP TABLE tmp AS SELECT 7 AS a')
  await stir()
  say(await rows(client, 'SHOW TimeZone'), await rows(client, 'SHOW work_mem'), await rows(client, 'SELECT * FROM tmp'))
  for (const other of others) say(await rows(other, 'SHOW TimeZone'), await rows(other, "SELECT to_regclass('tmp')::text AS t"))
  await client.query('DISCARD ALL')
  await stir()
  say(await rows(client, 'SHOW TimeZone'), await rows(client, "SELECT to_regclass('tmp')::text AS t"))
  await Promise.all([client, ...others].map(c => c.end()))
}

run([connection, typesRoundTrip, prepared, transactions, errors, copies, cancel, listen, churn, cursors, large, sessionState])

'use strict'
// postgres.js, as its users use it: it pipelines and prepares by itself.

const postgres = require('postgres')
const { pipeline } = require('stream/promises')
const { Readable, Writable } = require('stream')
const { say, md5, refused, run, ssl, wrongSSL, nodePorts, sleep, big } = require('./transcript')

const settings = more => {
  const { PGHOST: host, PGPORT: port, PGDATABASE: database, PGUSER: username, PGPASSWORD: password } = process.env
  return { host, port: Number(port), database, username, password, ssl: ssl(), max: 1, connect_timeout: 20, onnotice: () => {}, ...more }
}

const plain = result => ({ command: result.command, count: result.count, rows: Array.from(result) })

async function using (more, f) {
  const sql = postgres(settings(more))
  try {
    await f(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

async function waitRunning (mark) {
  const nodes = nodePorts.map(port => postgres(settings({ host: '127.0.0.1', port, username: 'postgres', ssl: false })))
  for (;;) {
    const found = await Promise.all(nodes.map(sql => sql`SELECT 1 FROM pg_stat_activity
      WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid() AND position(${mark} in query) > 0`))
    if (found.some(f => f.length)) break
    await sleep(10)
  }
  await Promise.all(nodes.map(sql => sql.end()))
}

async function connection () {
  await using({}, async sql => {
    say(plain(await sql`SELECT current_user, 1 + 1 AS two`))
    const p = sql.parameters
    for (const name of ['server_version', 'client_encoding', 'DateStyle', 'TimeZone', 'is_superuser']) say(name, p[name] ?? '-')
  })
  for (const more of [{ password: 'wrong' }, { username: 'nobody_here' }, { database: 'no_such_database' }]) {
    await using(more, sql => refused(sql`SELECT 1`))
  }
  await using({ ssl: wrongSSL() }, sql => sql`SELECT 1`.then(() => say('FAIL: connected'), e => say('refused here', /SIGN|VERIFY/.test(e.code))))
  await using({ connection: { application_name: 'mine', search_path: 'a,b', statement_timeout: 12345 } }, async sql => {
    for (const name of ['application_name', 'search_path', 'statement_timeout']) say(Array.from(await sql.unsafe('SHOW ' + name)))
  })
}

async function types () {
  await using({}, async sql => {
    const json = sql.json({ a: [1, null, 'x'] })
    for (const [value, text] of [
      [true, 'bool'], [-32768, 'int2'], ['-9223372036854775808', 'int8'], ['-12345678901234567890.123456789', 'numeric'], [0.1, 'float8'], ['', 'text'],
      ["h\u00e9llo \u4e16\u754c \u{1F600} 'quoted' \\ $1 ?", 'text'], [Buffer.from([0, 1, 254, 255]), 'bytea'], [new Date(Date.UTC(2024, 6, 1, 12)), 'timestamptz'],
      ['12345678-1234-5678-1234-567812345678', 'uuid'], [json, 'jsonb'], [sql.array([1, 2, 3]), 'int4[]'], [sql.array(['a', 'q"\\,{}']), 'text[]'], [null, 'text']
    ]) {
      const [row] = await sql`SELECT ${value}::${sql.unsafe(text)} AS v, pg_typeof(${value}::${sql.unsafe(text)})::text AS t`
      say(text, Buffer.isBuffer(row.v) ? row.v.toString('hex') : row.v, row.t)
    }
    say(Array.from((await sql`SELECT 1 AS a, 'x'::varchar(3) AS b`).columns, c => [c.name, c.type]))
  })
}

async function prepared () {
  for (const prepare of [true, false]) {
    await using({ prepare, max: 3 }, async sql => {
      await sql.unsafe(`DROP TABLE IF EXISTS p; CREATE TABLE p AS SELECT i AS id, 'v' || i AS v FROM generate_series(1, 100) i`)
      const all = await Promise.all(Array.from({ length: 100 }, (_, i) => sql.begin(async tx => {
        const [a] = await tx`SELECT v FROM p WHERE id = ${i + 1}`
        await tx`UPDATE p SET v = v WHERE id = ${i + 1}`
        const [b] = await tx`SELECT ${i}::int + 1 AS n`
        return a.v === 'v' + (i + 1) && b.n === i + 1
      })))
      say(prepare, all.every(Boolean))
    })
    await using({ prepare }, async sql => {
      await sql`COMMENT ON TABLE p IS 'seen'` // it sees what was written before its own write
      const star = () => sql`SELECT * FROM p WHERE id = ${1}`
      const named = () => sql`SELECT id, v FROM p WHERE id = ${1}`
      for (let i = 0; i < 3; i++) say(plain(await star()), plain(await named()))
      for (const change of ['ALTER TABLE p ADD COLUMN w int DEFAULT 7', 'ALTER TABLE p ALTER v TYPE varchar(20)']) {
        await sql.unsafe(change)
        for (const query of [star, named, star, named]) {
          await query().then(r => say(plain(r)), e => say(e.code, e.message))
        }
      }
      await refused(sql`SELECT * FROM missing WHERE id = ${1}`)
      say(await sql`SELECT * FROM p WHERE id = ${2}`.describe().then(d => [d.types, d.columns.map(c => [c.name, c.type])]))
    })
  }
}

async function transactions () {
  await using({}, async sql => {
    await sql`CREATE TABLE tx (id int PRIMARY KEY)`
    await sql.begin(async tx => {
      await tx`INSERT INTO tx VALUES (1)`
      await refused(tx.savepoint(async sp => {
        await sp`INSERT INTO tx VALUES (2)`
        await sp`INSERT INTO tx VALUES (1)`
      }))
      await tx.savepoint(sp => sp`INSERT INTO tx VALUES (3)`)
    })
    await refused(sql.begin('ISOLATION LEVEL SERIALIZABLE READ ONLY', async tx => {
      say(Array.from(await tx`SHOW transaction_isolation`))
      await tx`INSERT INTO tx VALUES (9)`
    }))
    await refused(sql.begin(async tx => { await tx`SELECT 1/0` }))
    say(await sql.begin(tx => [tx`INSERT INTO tx VALUES (4)`, tx`INSERT INTO tx VALUES (5)`, tx`SELECT count(*) FROM tx`]).then(r => r.map(plain)))
    say(plain(await sql`SELECT array_agg(id ORDER BY id) FROM tx`))
  })
}

async function errors () {
  const notices = []
  await using({ onnotice: n => notices.push([n.severity, n.code, n.message]) }, async sql => {
    await sql`CREATE TABLE er (id int PRIMARY KEY, v int NOT NULL)`
    for (const text of ['SELEC 1', 'SELECT 1/0', 'SELECT * FROM missing', 'INSERT INTO er VALUES (1, NULL)']) {
      await refused(sql.unsafe(text))
      await refused(sql.unsafe(text, [], { prepare: true }))
      say(plain(await sql`SELECT count(*) FROM er`))
    }
    await refused(sql`INSERT INTO er VALUES (${1}, ${'x'})`)
    await sql.unsafe("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    say(notices)
    say((await sql.unsafe('SELECT 1 AS a; INSERT INTO er VALUES (1, 1); SELECT 2 AS b')).map(plain))
    // All in flight on one connection, one of them wrong.
    const flying = await Promise.allSettled([1, 2, 0, 4].map(i => sql`SELECT 12 / ${i}::int AS v`))
    say(flying.map(f => f.value ? Array.from(f.value) : f.reason.code))
    const many = await Promise.all(Array.from({ length: 500 }, (_, i) => sql`SELECT ${i}::int AS v`))
    say(many.reduce((sum, [row]) => sum + row.v, 0))
  })
}

async function copies () {
  await using({}, async sql => {
    await sql`CREATE TABLE cp (id int, v text)`
    await pipeline(Readable.from(Array.from({ length: 5000 }, (_, i) => `${i}\tv${i}\n`)), await sql`COPY cp FROM STDIN`.writable())
    const chunks = []
    await pipeline(await sql`COPY (SELECT * FROM cp ORDER BY id) TO STDOUT`.readable(), new Writable({ write (c, _, done) { chunks.push(c); done() } }))
    const all = Buffer.concat(chunks)
    say(all.length, md5(all), plain(await sql`SELECT count(*), sum(id) FROM cp`))
  })
}

async function cancel () {
  await using({}, async sql => {
    const query = sql`SELECT pg_sleep(20) /* cancel me */`
    const sleeping = refused(query)
    await waitRunning('cancel me')
    query.cancel()
    await sleeping
    say(plain(await sql`SELECT 1 AS one`))
  })
}

async function listen () {
  await using({ max: 2 }, async sql => {
    const got = []
    let wake = () => {}
    const hear = async count => { while (got.length < count) await new Promise(resolve => { wake = resolve }) }
    const subscription = await sql.listen('news', payload => { got.push(payload); wake() })
    await sql.notify('news', 'one')
    await hear(1)
    await sql.begin(tx => tx`SELECT pg_notify('news', 'two')`)
    await hear(2)
    await refused(sql.begin(async tx => { await tx`NOTIFY news, 'never'`; await tx`SELECT 1/0` }))
    await sql.notify('news', 'three')
    await hear(3)
    await subscription.unlisten()
    await sql.notify('news', 'unheard')
    say(got)
  })
}

async function churn () {
  await using({}, sql => sql`CREATE TABLE ch (a int)`)
  const results = await Promise.allSettled(Array.from({ length: 60 }, (_, i) => using({}, async sql => {
    await sql`INSERT INTO ch VALUES (${i})`
    await sql`INSERT INTO ch VALUES (${i})`
  })))
  say('failures', results.filter(r => r.reason).map(r => String(r.reason)))
  await using({}, sql => sql.begin(async tx => say(plain(await tx`SELECT count(*), sum(a) FROM ch`))))
}

async function cursors () {
  await using({}, async sql => {
    const sizes = []
    await sql`SELECT i FROM generate_series(1, 1000) i`.cursor(300, rows => { sizes.push(rows.length) })
    for await (const rows of sql`SELECT i FROM generate_series(1, 1000) i`.cursor(10)) {
      if (rows[0].i > 50) break // in the middle
    }
    let sum = 0
    await sql`SELECT i FROM generate_series(1, 1000) i`.forEach(row => { sum += row.i })
    say(sizes, sum)
    await refused(sql`SELECT 1 / (500 - i) FROM generate_series(1, 1000) i`.cursor(100, () => {}))
    say((await sql`SELECT 1 AS one`).filter(Boolean)) // the driver leaves holes here
  })
}

async function large () {
  await using({}, async sql => {
    await sql`CREATE TABLE lg (t text)`
    await sql`ALTER TABLE lg ALTER t SET STORAGE EXTERNAL`
    await sql`INSERT INTO lg VALUES (${'0123456789'.repeat(big / 10)})`
    const [{ t }] = await sql`SELECT t FROM lg`
    say(t.length, md5(t))
    await sql`TRUNCATE lg`
  })
}

run([connection, types, prepared, transactions, errors, copies, cancel, listen, churn, cursors, large])

'use strict'
// A shop written with knex. A query builder does what it is told: the customer
// is in every condition, and in the primary and foreign keys of what belongs to
// a customer.

const { say, refused, run } = require('./transcript')

const knex = require('knex')({
  client: 'pg',
  connection: { host: process.env.PGHOST, port: process.env.PGPORT, user: process.env.PGUSER, password: process.env.PGPASSWORD, database: process.env.PGDATABASE },
  pool: { min: 0, max: 3 },
  migrations: { directory: './migrations' }
})

const c = [] // ids of the customers, in the order of their making: they may have gaps

async function schema () {
  say(await knex.migrate.currentVersion())
  say((await knex.migrate.up())[1])
  say(await knex.migrate.currentVersion())
  for (const table of ['customers', 'products', 'orders', 'order_items', 'no_such']) {
    say(table, await knex.schema.hasTable(table), await knex.schema.hasColumn(table, 'customer_id'))
  }
  say(await knex('orders').columnInfo())
}

async function catalogue () {
  const rows = []
  for (let i = 1; i <= 10; i++) rows.push({ sku: 'sku-' + i, name: 'product ' + i, price: i / 2, stock: 100 })
  say(await knex('products').insert(rows).returning(['id', 'sku']))
  say(await knex('products').where('sku', 'sku-3').update({ price: 9.99, tags: ['new', "it's"] }, '*'))
  say(await knex('products').where('price', '<', 2).increment('stock', 5))
  say(await knex('products').select('sku', 'price', 'stock').orderBy('id'))
  say(await knex('products').count().sum('stock').first())
  const again = [{ sku: 'sku-1', name: 'again', price: 1 }, { sku: 'sku-11', name: 'eleven', price: 2 }]
  say((await knex('products').insert(again).onConflict('sku').merge(['name']).returning(['sku', 'name'])))
  await knex('products').insert(again).onConflict('sku').ignore()
  await refused(knex('products').insert(again))
  say(await knex('products').where({ sku: 'sku-11' }).del())
  say(await knex('products').whereRaw('? = ANY (tags)', ['new']).pluck('name'))
}

async function customers () {
  for (let i = 1; i <= 6; i++) {
    const [row] = await knex('customers').insert({ email: `c${i}@example.org`, name: 'customer ' + i, preferences: { i } }).returning('*')
    c.push(row.id)
    say(row.email, row.active, row.preferences, typeof row.created_at)
  }
  const many = Array.from({ length: 20 }, (_, i) => ({ email: 'm', name: 'many ' + i }))
  c.push(...(await knex('customers').insert(many, ['id'])).map(row => row.id))
  c.push(...(await knex.batchInsert('customers', many, 7).returning('id')).map(row => row.id))
  say(c.length, c.every((id, i) => i === 0 || BigInt(id) > BigInt(c[i - 1])))
}

async function placesOrders () {
  for (const customer of c.slice(0, 6)) {
    await knex.transaction(async trx => {
      for (let size = 1; size <= 4; size++) {
        const [{ id }] = await trx('orders').insert({ customer_id: customer, note: 'order ' + size }).returning('id')
        const items = Array.from({ length: size }, (_, i) => ({ customer_id: customer, order_id: id, line: i + 1, product_id: i + 1, quantity: size, price: 2.5 }))
        await trx('order_items').insert(items)
      }
    })
  }
  // One transaction for two customers.
  await knex.transaction(trx => trx('orders').insert([{ customer_id: c[0], note: 'of two' }, { customer_id: c[1], note: 'of two' }]))
  for (const customer of c.slice(0, 3)) say(await knex('orders').where({ customer_id: customer }).orderBy('id').pluck('note'))
}

async function reads () {
  say(await knex('customers').where({ id: c[1] }).first('name', 'email'))
  say((await knex('customers').where({ id: -1 }).first()) === undefined)
  say(await knex('customers as c').join('orders as o', 'o.customer_id', 'c.id').where('c.id', c[2]).orderBy('o.id').select('c.name', 'o.note'))
  say(await knex('customers').leftJoin('orders', 'orders.customer_id', 'customers.id').where('customers.id', c[7]).select('customers.name', 'orders.note'))
  const items = knex('orders as o').join('order_items as i', function () { this.on('i.customer_id', 'o.customer_id').andOn('i.order_id', 'o.id') })
  say(await items.clone().join('products as p', 'p.id', 'i.product_id').where('o.customer_id', c[3]).orderBy(['o.id', 'i.line']).select('o.note', 'i.line', 'p.sku'))
  say(await items.clone().where({ 'o.customer_id': c[3], 'i.line': 2 }).count('* as n'))
  const orders = await knex('orders').where('customer_id', c[0]).orderBy('id')
  say(await knex('order_items').where('customer_id', c[0]).whereIn('order_id', orders.map(o => o.id)).orderBy(['order_id', 'line']).select('line', 'quantity'))
  say(await knex('order_items').whereIn(['customer_id', 'order_id'], orders.map(o => [o.customer_id, o.id])).count())
  say(await knex('orders as o').where('o.customer_id', c[0]).whereExists(knex('order_items as i').whereRaw('i.customer_id = o.customer_id AND i.order_id = o.id').where('line', 3)).orderBy('id').pluck('note'))
  say(await knex('customers').where('id', c[0]).whereIn('id', knex('orders').where('customer_id', c[0]).select('customer_id')).pluck('name'))
  say(await knex('orders').where('customer_id', c[0]).whereNot('status', 'paid').whereNull('note').orWhere({ customer_id: c[0], note: 'order 1' }).pluck('note'))
  say(await knex.with('mine', knex('orders').where('customer_id', c[0])).from('mine').count().first())
  say(await knex('orders').where('customer_id', c[0]).where('note', 'order 1').select('note').unionAll(knex('orders').where('customer_id', c[0]).where('note', 'order 2').select('note')))
  say(await knex('orders').where('customer_id', c[0]).distinct('status').pluck('status'))
  say(await knex('orders').where('customer_id', c[0]).whereBetween('id', [0, 1e9]).orderBy('id').pluck('note'))
}

async function pages () {
  for (const offset of [0, 2, 4]) say(await knex('orders').where('customer_id', c[0]).orderBy('id').limit(2).offset(offset).pluck('note'))
  const first = await knex('orders').where('customer_id', c[0]).orderBy('id').first()
  say(await knex('orders').where('customer_id', c[0]).whereRaw('(placed, id) > (?, ?)', [first.placed, first.id]).orderBy('id').limit(2).pluck('note'))
}

async function aggregates () {
  const items = knex('order_items').where('customer_id', c[1])
  say(await items.clone().groupBy('order_id').orderBy('order_id').select(knex.raw('count(*)::int AS n, sum(quantity * price) AS total')))
  say(await items.clone().groupBy('product_id').havingRaw('count(*) > ?', [1]).orderBy('product_id').sum({ q: 'quantity' }).select('product_id').max('line as line'))
  say(await items.clone().min('line as lo').max('line as hi').avg('price as mean').countDistinct('product_id as products').first())
  say(await items.clone().orderBy(['order_id', 'line']).select('line').rowNumber('n', t => t.partitionBy('order_id').orderBy('line', 'desc')))
  const totals = knex('order_items').where('customer_id', c[1]).groupBy('customer_id', 'order_id').select('customer_id', 'order_id').sum('quantity as q').as('t')
  say(await knex('orders as o').leftJoin(totals, function () { this.on('t.order_id', 'o.id').andOn('t.customer_id', 'o.customer_id') }).where('o.customer_id', c[1]).orderBy('o.id').select('o.note', 't.q'))
}

async function updates () {
  say(await knex('customers').where({ id: c[0] }).update({ name: 'renamed', preferences: JSON.stringify({ colour: 'blue' }), updated_at: knex.fn.now() }, ['name', 'preferences']))
  say(await knex('customers').where({ id: c[0] }).whereJsonPath('preferences', '$.colour', '=', 'blue').pluck('name'))
  say(await knex('orders').where({ customer_id: c[0], note: 'order 1' }).update({ status: 'paid', note: knex.raw('?? || ?', ['note', '!']) }))
  say((await knex('orders').where({ customer_id: c[0] }).update({ status: 'sent' }).returning('note')).map(o => o.note).sort())
  say(await knex('order_items').where({ customer_id: c[0], line: 1 }).decrement('quantity', 1).increment('price', 2))
  say(await knex('order_items').where({ customer_id: c[0] }).orderBy(['order_id', 'line']).select('quantity', 'price'))
  await knex.raw('UPDATE order_items i SET price = p.price FROM products p WHERE p.id = i.product_id AND i.customer_id = ?', [c[0]])
  await knex.transaction(async trx => {
    for (const id of c.slice(10, 20)) await trx('customers').where({ id }).update({ active: false })
  })
  say((await Promise.all(c.slice(9, 21).map(id => knex('customers').where({ id }).first()))).map(row => row.active))
}

async function upserts () {
  say(await knex('customers').insert({ id: c[0], email: 'x', name: 'upserted' }).onConflict('id').merge().returning(['email', 'name']))
  say(await knex('customers').insert({ id: c[1], email: 'x', name: 'no' }).onConflict('id').ignore().returning('name'))
  say(await knex('customers').insert({ id: c[2], email: 'x', name: 'merged' }).onConflict('id').merge({ name: knex.raw("customers.name || '+' || excluded.name") }).returning(['email', 'name']))
  const [{ order_id: order }] = await knex('order_items').where({ customer_id: c[2], line: 4 })
  const rows = [4, 5].map(line => ({ customer_id: c[2], order_id: order, line, product_id: 1, quantity: 9, price: 1 }))
  await knex('order_items').insert(rows).onConflict(['customer_id', 'order_id', 'line']).merge(['quantity'])
  say(await knex('order_items').where({ customer_id: c[2], order_id: order }).orderBy('line').select('line', 'quantity', 'product_id'))
}

async function locks () {
  await knex.transaction(async trx => {
    say(await trx('customers').where({ id: c[3] }).forUpdate().pluck('name'))
    say(await trx('orders').where({ customer_id: c[3] }).orderBy('id').forUpdate().skipLocked().pluck('note'))
    say(await trx('products').where({ id: 1 }).forShare().pluck('sku'))
    await refused(knex('customers').where({ id: c[3] }).forUpdate().noWait())
  })
}

async function transactions () {
  await refused(knex.transaction(async trx => {
    await trx('orders').insert({ customer_id: c[4], note: 'never' })
    throw new Error('no')
  }))
  await knex.transaction(async trx => {
    await trx('orders').insert({ customer_id: c[4], note: 'kept' })
    await refused(trx.transaction(async inner => {
      await inner('orders').insert({ customer_id: c[4], note: 'inner' })
      await inner('order_items').insert({ customer_id: c[4], order_id: -1, line: 1, product_id: 1, quantity: 1, price: 1 })
    }))
    await trx.transaction(inner => inner('orders').insert({ customer_id: c[5], note: 'of another customer' }))
  })
  for (const customer of c.slice(4, 6)) say(await knex('orders').where({ customer_id: customer }).orderBy('id').pluck('note'))
  const trx = await knex.transaction({ isolationLevel: 'serializable' })
  say((await trx.raw('SHOW transaction_isolation')).rows, await trx('customers').where({ id: c[4] }).pluck('name'))
  await trx.rollback()
  await knex.transaction(async trx => say(await trx('customers').where({ id: c[4] }).pluck('name')), { readOnly: true })
}

async function raw () {
  say((await knex.raw('SELECT name FROM customers WHERE id = :id', { id: c[5] })).rows)
  say((await knex.raw('SELECT o.note, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.id = ? ORDER BY o.id', [c[5]])).rows)
  say((await knex.raw('INSERT INTO orders (customer_id, note) VALUES (?, ?) RETURNING note', [c[5], 'raw'])).rows)
  say((await knex.raw('SELECT 1 AS one')).rows)
}

async function deletes () {
  say(await knex('orders').where({ customer_id: c[2], note: 'order 1' }).del('note'))
  say(await knex('customers').where({ id: c[1] }).del())
  say(await knex('orders').where({ customer_id: c[1] }).count(), await knex('order_items').where({ customer_id: c[1] }).count())
}

async function migrations () {
  say((await knex.migrate.latest())[1])
  say(await knex('knex_migrations').orderBy('id').pluck('name'), await knex('knex_migrations_lock').pluck('is_locked'))
  say(await knex('orders').where({ customer_id: c[0] }).orderBy('id').select('remark', 'priority').first())
  say(await knex('warehouses').orderBy('id'), await knex('products').orderBy('id').pluck('stock'))
  await refused(knex('orders').where({ customer_id: c[0] }).update({ priority: -1 }))
  say((await knex.migrate.down())[1])
  say(await knex.schema.hasColumn('orders', 'priority'), await knex.schema.hasTable('warehouses'))
  say((await knex.migrate.latest())[1], (await knex.migrate.list())[1].length)
}

async function ends () {
  await knex('warehouses').truncate()
  say(await knex('warehouses').count())
  say((await knex.migrate.rollback(undefined, true))[1])
  say(await knex.schema.hasTable('orders'))
  await knex.destroy()
}

run([schema, catalogue, customers, placesOrders, reads, pages, aggregates, updates, upserts, locks, transactions, raw, deletes, migrations, ends])

'use strict'

exports.up = async knex => {
  await knex.schema.createTable('customers', t => {
    t.bigIncrements('id')
    t.text('email').notNullable()
    t.string('name', 200).notNullable().index()
    t.boolean('active').notNullable().defaultTo(true)
    t.jsonb('preferences').notNullable().defaultTo('{}')
    t.timestamps(true, true)
  })
  await knex.schema.createTable('products', t => {
    t.increments('id')
    t.string('sku').notNullable().unique()
    t.string('name').notNullable()
    t.decimal('price', 10, 2).notNullable()
    t.integer('stock').notNullable().defaultTo(0)
    t.specificType('tags', 'text[]').notNullable().defaultTo('{}')
  })
  await knex.schema.createTable('orders', t => {
    t.bigInteger('customer_id').notNullable().references('id').inTable('customers').onDelete('CASCADE')
    t.bigIncrements('id', { primaryKey: false })
    t.enu('status', ['new', 'paid', 'sent']).notNullable().defaultTo('new')
    t.text('note')
    t.timestamp('placed').notNullable().defaultTo(knex.fn.now())
    t.primary(['customer_id', 'id'])
    t.index(['customer_id', 'status'])
  })
  await knex.schema.createTable('order_items', t => {
    t.bigInteger('customer_id').notNullable()
    t.bigInteger('order_id').notNullable()
    t.integer('line').notNullable()
    t.integer('product_id').notNullable().references('products.id')
    t.integer('quantity').notNullable()
    t.decimal('price', 10, 2).notNullable()
    t.primary(['customer_id', 'order_id', 'line'])
    t.foreign(['customer_id', 'order_id']).references(['customer_id', 'id']).inTable('orders').onDelete('CASCADE')
  })
}

exports.down = async knex => {
  for (const table of ['order_items', 'orders', 'products', 'customers']) await knex.schema.dropTable(table)
}

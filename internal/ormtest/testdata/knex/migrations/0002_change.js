'use strict'

exports.up = async knex => {
  await knex.schema.alterTable('orders', t => {
    t.integer('priority').notNullable().defaultTo(0)
    t.renameColumn('note', 'remark')
    t.string('remark2', 20)
    t.check('priority >= 0', {}, 'orders_priority')
  })
  await knex.schema.alterTable('customers', t => {
    t.text('name').notNullable().alter()
    t.dropIndex('name')
  })
  await knex.schema.createTable('warehouses', t => {
    t.increments()
    t.string('name').unique()
  })
  await knex('warehouses').insert([{ name: 'north' }, { name: 'south' }])
  await knex('products').update({ stock: knex.raw('?? + 1', ['stock']) })
}

exports.down = async knex => {
  await knex.schema.dropTableIfExists('warehouses')
  await knex.schema.alterTable('customers', t => t.index('name'))
  await knex.schema.alterTable('orders', t => {
    t.dropChecks('orders_priority')
    t.dropColumns('priority', 'remark2')
    t.renameColumn('remark', 'note')
  })
}

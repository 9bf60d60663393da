package ormtest

// The queries of the shop as sqlc takes them: named, the text never changes.
// Whoever writes SQL by hand for a sharded database gives the customer to every
// query, and joins by it.
const (
	createCustomer = `-- name: CreateCustomer :one
INSERT INTO customers (email, name) VALUES ($1, $2)
RETURNING id, email, name, active, preferences, created_at
`
	getCustomer = `-- name: GetCustomer :one
SELECT id, email, name, active, preferences, created_at FROM customers WHERE id = $1 LIMIT 1
`
	lockCustomer = `-- name: LockCustomer :one
SELECT id, email, name, active, preferences, created_at FROM customers WHERE id = $1 FOR NO KEY UPDATE
`
	updateCustomer = `-- name: UpdateCustomer :one
UPDATE customers SET
    email = coalesce($2, email),
    name = coalesce($3, name),
    preferences = preferences || $4
WHERE id = $1
RETURNING id, email, name, active, preferences, created_at
`
	upsertCustomer = `-- name: UpsertCustomer :one
INSERT INTO customers (id, email, name) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.name WHERE customers.name <> excluded.name
RETURNING id, email, name, active, preferences, created_at
`
	deleteCustomer = `-- name: DeleteCustomer :execrows
WITH gone AS (DELETE FROM orders WHERE orders.customer_id = $1)
DELETE FROM customers WHERE id = $1
`
	createProduct = `-- name: CreateProduct :one
INSERT INTO products (sku, name, price, stock) VALUES ($1, $2, $3, 100)
ON CONFLICT (sku) DO UPDATE SET name = excluded.name
RETURNING id, sku, name, price, stock
`
	listProducts = `-- name: ListProducts :many
SELECT id, sku, name, price, stock FROM products WHERE sku = ANY($1::text[]) ORDER BY sku
`
	takeStock = `-- name: TakeStock :execrows
UPDATE products SET stock = stock - $2 WHERE id = $1 AND stock >= $2
`
	createOrder = `-- name: CreateOrder :one
INSERT INTO orders (customer_id, note) VALUES ($1, $2)
RETURNING id, customer_id, status, note
`
	createItem = `-- name: CreateItem :batchexec
INSERT INTO order_items (customer_id, order_id, line, product_id, quantity, price)
VALUES ($1, $2, $3, $4, $5, (SELECT price FROM products WHERE id = $4))
`
	createItemOfOther = `-- name: CreateItemOfOther :execrows
INSERT INTO order_items (customer_id, order_id, line, product_id, quantity, price)
SELECT i.customer_id, i.order_id, $4, i.product_id, i.quantity, p.price
FROM order_items i JOIN products p ON p.id = i.product_id
WHERE i.customer_id = $1 AND i.order_id = $2 AND i.line = $3
`
	createItems = `-- name: CreateItems :execrows
INSERT INTO order_items (customer_id, order_id, line, product_id, quantity, price)
SELECT $1, $2, line, product_id, quantity, p.price
FROM unnest($3::int[]) WITH ORDINALITY AS l (line, n)
JOIN unnest($4::int[]) WITH ORDINALITY AS i (product_id, n) USING (n)
JOIN unnest($5::int[]) WITH ORDINALITY AS q (quantity, n) USING (n)
JOIN products p ON p.id = product_id
`
	createItemsOfRows = `-- name: CreateItemsOfRows :exec
INSERT INTO order_items (customer_id, order_id, line, product_id, quantity, price)
VALUES ($1, $2, $3, $4, $5, $6), ($1, $2, $7, $8, $9, $10)
`
	getOrder = `-- name: GetOrder :one
SELECT id, customer_id, status, note FROM orders WHERE customer_id = $1 AND id = $2
`
	listOrders = `-- name: ListOrders :many
SELECT o.id, o.customer_id, o.status, o.note FROM orders o
WHERE o.customer_id = $1 AND o.id > $2
ORDER BY o.id
LIMIT $3
`
	searchOrders = `-- name: SearchOrders :many
SELECT id, customer_id, status, note FROM orders
WHERE customer_id = $1 AND ($2::text IS NULL OR note LIKE $2) AND ($3::order_status IS NULL OR status = $3)
ORDER BY id
`
	orderTotals = `-- name: OrderTotals :many
SELECT o.note, c.name, count(i.line) AS lines, coalesce(sum(i.amount), 0)::text AS total, coalesce(json_agg(p.sku ORDER BY i.line) FILTER (WHERE i.line IS NOT NULL), '[]')::text AS skus
FROM orders o
JOIN customers c ON c.id = o.customer_id
LEFT JOIN order_items i ON i.customer_id = o.customer_id AND i.order_id = o.id
LEFT JOIN products p ON p.id = i.product_id
WHERE o.customer_id = $1
GROUP BY o.customer_id, o.id, c.id
ORDER BY o.id
`
	bestProducts = `-- name: BestProducts :many
WITH sold AS (
    SELECT product_id, sum(quantity) AS quantity FROM order_items WHERE customer_id = $1 GROUP BY product_id
)
SELECT p.sku, sold.quantity, rank() OVER (ORDER BY sold.quantity DESC, p.sku) FROM sold JOIN products p ON p.id = sold.product_id
ORDER BY 3
`
	lastOrders = `-- name: LastOrders :many
SELECT c.name, o.note FROM customers c
CROSS JOIN LATERAL (SELECT note FROM orders WHERE orders.customer_id = c.id ORDER BY id DESC LIMIT 2) o
WHERE c.id = $1
`
	setStatus = `-- name: SetStatus :many
UPDATE orders SET status = $3 WHERE customer_id = $1 AND id = ANY($2::bigint[])
RETURNING id, customer_id, status, note
`
	deleteOrder = `-- name: DeleteOrder :exec
DELETE FROM orders WHERE customer_id = $1 AND id = $2
`
	hasOrders = `-- name: HasOrders :one
SELECT EXISTS (SELECT 1 FROM orders WHERE customer_id = $1 AND status = $2)
`
)

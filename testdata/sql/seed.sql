-- Rows for schema.sql: 500 customers, 120 products, 2,250 orders with
-- 5,320 items. The same rows wherever and whenever it runs: everything
-- is computed from the numbers, nothing from random() or now().

INSERT INTO products (id, sku, name, category, price, weight_gram, tags)
SELECT p,
       format('%s-%s', upper(left(category, 3)), to_char(p, 'FM0000')),
       format('%s %s', adjective, noun),
       category,
       round((3 + (p * 7919) % 49700 / 100.0)::numeric, 2),
       CASE WHEN p % 11 <> 0 THEN 50 + (p * 613) % 9000 END,
       ARRAY[category] || CASE WHEN p % 3 = 0 THEN ARRAY['sale'] ELSE '{}' END
                       || CASE WHEN p % 8 = 0 THEN ARRAY['new', 'gift'] ELSE '{}' END
FROM generate_series(1, 120) AS p,
     LATERAL (SELECT (ARRAY['books', 'garden', 'kitchen', 'music', 'office', 'sport'])[1 + p % 6] AS category,
                     (ARRAY['Blue', 'Quiet', 'Solid', 'Plain', 'Little', 'Grand', 'Swift'])[1 + p % 7] AS adjective,
                     (ARRAY['Lamp', 'Chair', 'Atlas', 'Kettle', 'Rake', 'Flute', 'Ledger', 'Ball', 'Crate'])[1 + p % 9] AS noun) AS words;

INSERT INTO customers (id, name, email, country, credit, attributes, created_at)
SELECT c,
       format('%s %s', first_name, last_name),
       format('customer%s@example.com', c),
       (ARRAY['DE', 'FR', 'NL', 'PL', 'SE', 'ES', 'IT'])[1 + (c * 31) % 7],
       (c * 137) % 5000 / 4.0,
       jsonb_build_object('newsletter', c % 2 = 0, 'level', (ARRAY['basic', 'silver', 'gold'])[1 + c % 3])
           || CASE WHEN c % 10 = 0 THEN jsonb_build_object('phone', format('+49 30 %s', 100000 + c * 17)) ELSE '{}' END,
       timestamptz '2023-01-01 08:00:00+00' + c * interval '1 hour 7 minutes'
FROM generate_series(1, 500) AS c,
     LATERAL (SELECT (ARRAY['Ada', 'Boris', 'Chiara', 'Dilan', 'Élise', 'Finn', 'Gül', 'Hana', 'Ivo', 'Jörg', 'Kaja'])[1 + c % 11] AS first_name,
                     (ARRAY['Adler', 'Brandt', 'Costa', 'Dubois', 'Eriksen', 'Fischer', 'García', 'Hoffmann', 'Novák', 'Öztürk', 'Peeters', 'Rossi', 'Zieliński'])[1 + c % 13] AS last_name) AS names;

-- Every customer has 0 to 9 orders; their numbers count from 1 per customer.
INSERT INTO orders (customer_id, id, status, placed_at, shipped_on, note)
SELECT c, o, status, placed_at,
       CASE WHEN status IN ('shipped', 'delivered') THEN (placed_at AT TIME ZONE 'UTC')::date + 1 + (c + o)::integer % 4 END,
       CASE WHEN (c + o) % 17 = 0 THEN format('Leave at door %s; it''s the green one', c % 90) END
FROM generate_series(1, 500) AS c,
     LATERAL generate_series(1, (c * 13 % 10)::integer) AS o,
     LATERAL (SELECT (ARRAY['new', 'paid', 'shipped', 'delivered', 'delivered', 'delivered', 'cancelled'])[1 + (c * 3 + o * 5) % 7]::order_status AS status,
                     timestamptz '2024-01-01 00:00:00+00' + ((c * 7919 + o * 104729) % 525600) * interval '1 minute' AS placed_at) AS made;

-- One to four lines per order; now and then an order has none yet.
INSERT INTO order_items (customer_id, order_id, line, product_id, quantity, unit_price, discount)
SELECT o.customer_id, o.id, line, p.id, 1 + (o.customer_id + o.id + line) % 5, p.price,
       CASE WHEN (o.customer_id + line) % 9 = 0 THEN 0.15 ELSE 0 END
FROM orders AS o,
     LATERAL generate_series(1, CASE WHEN (o.customer_id * 7 + o.id) % 50 = 0 THEN 0
                             ELSE 1 + ((o.customer_id + o.id * 3) % 4)::integer END) AS line
JOIN products AS p ON true
WHERE p.id = 1 + (o.customer_id * 17 + o.id * 29 + line * 41) % 120;

ANALYZE customers, products, orders, order_items;

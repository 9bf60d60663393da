-- Revenue of some years
SELECT sum(ol_amount) AS revenue
FROM orderline
WHERE ol_delivery_d >= {date 2008-01-01} AND ol_delivery_d < {date 2010-01-01} AND ol_quantity BETWEEN {int 1} AND {int 100000}

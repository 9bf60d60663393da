-- Suppliers with much stock
-- order: 1
-- Instead of twice the stock: ten times, since a line has several items here.
SELECT su_name, su_address
FROM supplier, nation
WHERE su_suppkey IN (
        SELECT mod(s_i_id * s_w_id, 100)
        FROM stock, orderline
        WHERE s_i_id IN (SELECT i_id FROM item WHERE i_data LIKE {text co%}) AND ol_i_id = s_i_id AND ol_delivery_d > {date 2010-05-23}
        GROUP BY s_i_id, s_w_id, s_quantity
        HAVING {int 10} * s_quantity > sum(ol_quantity))
    AND su_nationkey = n_nationkey AND n_name = {text Germany}
ORDER BY su_name

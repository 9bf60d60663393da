-- The most ordered items of a nation's suppliers
-- order: 2
SELECT s_i_id, sum(s_order_cnt) AS ordercount
FROM stock, supplier, nation
WHERE mod(s_w_id * s_i_id, 100) = su_suppkey AND su_nationkey = n_nationkey AND n_name = {text Germany}
GROUP BY s_i_id
HAVING sum(s_order_cnt) > (
    SELECT sum(s_order_cnt) * {num 0.005}
    FROM stock, supplier, nation
    WHERE mod(s_w_id * s_i_id, 100) = su_suppkey AND su_nationkey = n_nationkey AND n_name = {text Germany})
ORDER BY ordercount DESC

-- The supplier with the most revenue
-- order: 1
WITH revenue (supplier_no, total_revenue) AS (
    SELECT mod(s_w_id * s_i_id, 100) AS supplier_no, sum(ol_amount) AS total_revenue
    FROM orderline, stock
    WHERE ol_i_id = s_i_id AND ol_supply_w_id = s_w_id AND ol_delivery_d >= {date 2007-01-02}
    GROUP BY mod(s_w_id * s_i_id, 100))
SELECT su_suppkey, su_name, su_address, su_phone, total_revenue
FROM supplier, revenue
WHERE su_suppkey = supplier_no AND total_revenue = (SELECT max(total_revenue) FROM revenue)
ORDER BY su_suppkey

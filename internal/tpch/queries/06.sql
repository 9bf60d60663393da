-- Forecasting revenue change
SELECT sum(l_extendedprice * l_discount) AS revenue
FROM lineitem
WHERE l_shipdate >= {date 1994-01-01} AND l_shipdate < {date 1994-01-01} + interval '1 year'
    AND l_discount BETWEEN {num 0.06} - 0.01 AND {num 0.06} + 0.01 AND l_quantity < {int 24}

-- Discounted revenue
-- Instead of one brand for each: all of a manufacturer; and air as the tables spell it,
-- with no instruction asked for, so that some lines are found on a small scale.
SELECT sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM lineitem, part
WHERE (p_partkey = l_partkey AND p_brand LIKE {text Brand#1%} AND p_container IN ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG')
        AND l_quantity >= {int 1} AND l_quantity <= {int 1} + 10 AND p_size BETWEEN 1 AND 5
        AND l_shipmode IN ('AIR', 'REG AIR'))
    OR (p_partkey = l_partkey AND p_brand LIKE {text Brand#2%} AND p_container IN ('MED BAG', 'MED BOX', 'MED PKG', 'MED PACK')
        AND l_quantity >= {int 10} AND l_quantity <= {int 10} + 10 AND p_size BETWEEN 1 AND 10
        AND l_shipmode IN ('AIR', 'REG AIR'))
    OR (p_partkey = l_partkey AND p_brand LIKE {text Brand#3%} AND p_container IN ('LG CASE', 'LG BOX', 'LG PACK', 'LG PKG')
        AND l_quantity >= {int 20} AND l_quantity <= {int 20} + 10 AND p_size BETWEEN 1 AND 15
        AND l_shipmode IN ('AIR', 'REG AIR'))

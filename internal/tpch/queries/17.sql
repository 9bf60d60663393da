-- Small-quantity-order revenue
-- Instead of one container of 40: all of its size.
SELECT sum(l_extendedprice) / 7.0 AS avg_yearly
FROM lineitem, part
WHERE p_partkey = l_partkey AND p_brand = {text Brand#23} AND p_container LIKE {text MED%}
    AND l_quantity < (SELECT {num 0.2} * avg(l_quantity) FROM lineitem WHERE l_partkey = p_partkey)

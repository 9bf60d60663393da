-- Parts and supplier relationship
-- order: 4 1 2 3
SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS supplier_cnt
FROM partsupp, part
WHERE p_partkey = ps_partkey AND p_brand <> {text Brand#45} AND p_type NOT LIKE {text MEDIUM POLISHED%}
    AND p_size IN ({int 49}, {int 14}, {int 23}, {int 45}, {int 19}, {int 3}, {int 36}, {int 9})
    AND ps_suppkey NOT IN (SELECT s_suppkey FROM supplier WHERE s_comment LIKE '%Customer%Complaints%')
GROUP BY p_brand, p_type, p_size
ORDER BY supplier_cnt DESC, p_brand, p_type, p_size

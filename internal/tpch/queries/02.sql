-- Minimum cost supplier
-- order: 1 3 2 4
-- limit
-- Instead of size 15: sizes up to it, of which there are some on any scale.
SELECT s_acctbal, s_name, n_name, p_partkey, p_mfgr, s_address, s_phone, s_comment
FROM part, supplier, partsupp, nation, region
WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND p_size <= {int 15} AND p_type LIKE {text %BRASS}
    AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = {text EUROPE}
    AND ps_supplycost = (
        SELECT min(ps_supplycost)
        FROM partsupp, supplier, nation, region
        WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND s_nationkey = n_nationkey
            AND n_regionkey = r_regionkey AND r_name = {text EUROPE})
ORDER BY s_acctbal DESC, n_name, s_name, p_partkey
LIMIT {int 100}

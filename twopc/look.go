package twopc

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// lookSQL asks a server, in one go, who waits for whom in this database. What it gives
// are rows of four kinds: one of the server itself; the processes that wait (a worker of
// a parallel query is its leader); what is prepared and holds what they wait for, of which
// pg_blocking_pids says no more than that it is there; and who of all these has a mark.
const lookSQL = `WITH d AS MATERIALIZED (SELECT oid FROM pg_database WHERE datname = current_database()),
l AS MATERIALIZED (SELECT * FROM pg_locks),
w AS MATERIALIZED (
	SELECT coalesce(a.leader_pid, l.pid) AS lead, l.*, pg_blocking_pids(l.pid) AS by
	  FROM l JOIN pg_stat_activity a ON a.pid = l.pid AND a.datid = (SELECT oid FROM d)
	 WHERE NOT l.granted AND l.waitstart IS NOT NULL),
p AS MATERIALIZED (
	SELECT w.lead, w.mode AS wanted, l.mode, l.virtualtransaction AS vxid
	  FROM w JOIN l ON l.pid IS NULL AND l.granted AND l.locktype = w.locktype
	   AND ROW(l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid) IS NOT DISTINCT FROM
	       ROW(w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid, w.classid, w.objid, w.objsubid)
	 WHERE 0 = ANY (w.by)),
m AS (
	SELECT l.pid, l.virtualtransaction AS vxid, l.objid::bigint AS mark
	  FROM l WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM d) AND l.classid::bigint = $1 AND l.objsubid = 2
	   AND (l.pid IN (SELECT lead FROM w UNION SELECT unnest(by) FROM w) OR l.pid IS NULL AND l.virtualtransaction IN (SELECT vxid FROM p)))
SELECT 0, CASE WHEN pg_is_in_recovery() THEN 1 ELSE 0 END, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       (extract(epoch FROM current_setting('deadlock_timeout')::interval) * 1000000)::bigint, '{}'::int[], '', '', ''
UNION ALL
SELECT 1, w.lead, (extract(epoch FROM w.waitstart) * 1000000)::bigint, 0, array_remove(w.by, 0), w.mode,
       CASE w.locktype
         WHEN 'relation' THEN format('relation %s of database %s', w.relation, w.database)
         WHEN 'extend' THEN format('extension of relation %s of database %s', w.relation, w.database)
         WHEN 'page' THEN format('page %s of relation %s of database %s', w.page, w.relation, w.database)
         WHEN 'tuple' THEN format('tuple (%s,%s) of relation %s of database %s', w.page, w.tuple, w.relation, w.database)
         WHEN 'transactionid' THEN format('transaction %s', w.transactionid)
         WHEN 'virtualxid' THEN format('virtual transaction %s', w.virtualxid)
         WHEN 'object' THEN format('object %s of class %s of database %s', w.objid, w.classid, w.database)
         WHEN 'advisory' THEN format('advisory lock [%s,%s,%s,%s]', w.database, w.classid, w.objid, w.objsubid)
         ELSE w.locktype END, ''
  FROM w
UNION ALL
SELECT 2, p.lead, 0, 0, '{}', p.wanted || ' ' || p.mode, p.vxid, coalesce((
	SELECT x.gid FROM l JOIN pg_prepared_xacts x ON x.transaction = l.transactionid
	 WHERE l.pid IS NULL AND l.virtualtransaction = p.vxid AND l.locktype = 'transactionid' AND l.granted LIMIT 1), '')
  FROM p
UNION ALL
SELECT 3, coalesce(m.pid, 0), m.mark, coalesce((
	SELECT (extract(epoch FROM a.xact_start) * 1000000)::bigint FROM pg_stat_activity a WHERE a.pid = m.pid), 0), '{}', m.vxid, '', ''
  FROM m
ORDER BY 1`

// The kinds of rows of lookSQL, in their order.
const (
	ofServer = iota
	ofWaiting
	ofPrepared
	ofMark
)

// look asks a server who waits for whom.
func (s *session) look(ctx context.Context, shard string) (look, error) {
	l := look{shard: shard}
	rows, err := s.conn.Query(ctx, lookSQL, pgx.QueryExecModeExec, int64(markClass))
	if err != nil {
		return l, err
	}
	var kind, pid int32
	var a, b int64
	var by []int32
	var one, two, three string
	_, err = pgx.ForEachRow(rows, []any{&kind, &pid, &a, &b, &by, &one, &two, &three}, func() error {
		switch kind {
		case ofServer:
			if pid != 0 {
				return errStandby
			}
			l.now, l.timeout = a, b
		case ofWaiting:
			w := waiting{pid: pid, since: a, mode: one, what: two}
			for _, p := range by {
				w.by = append(w.by, blocker{pid: p})
			}
			l.waits = append(l.waits, w)
		case ofPrepared:
			for i := range l.waits {
				if w := &l.waits[i]; w.pid == pid && conflicting(one) {
					w.by = append(w.by, blocker{vxid: two, gid: three})
				}
			}
		case ofMark:
			h := holding{pid: pid, mark: Mark(a), began: b}
			if pid == 0 {
				h.vxid = one
			}
			l.holds = append(l.holds, h)
		}
		return nil
	})
	return l, err
}

// conflicting reports whether the first of two modes waits for the second, as
// PostgreSQL's manual has it under "Table-Level Locks".
func conflicting(modes string) bool {
	wanted, held, _ := strings.Cut(modes, " ")
	w, h := levelOf(wanted), levelOf(held)
	switch min(w, h) {
	case 0:
		return false // a predicate lock, for which nobody waits
	case accessShare:
		return max(w, h) == accessExclusive
	case rowShare:
		return max(w, h) >= exclusive
	case rowExclusive:
		return max(w, h) >= share
	case share:
		return w != h
	}
	return true
}

// The modes of locks that conflicting tells apart, from weak to strong.
const (
	accessShare = iota + 1
	rowShare
	rowExclusive
	shareUpdateExclusive
	share
	shareRowExclusive
	exclusive
	accessExclusive
)

// levelOf returns the mode of a name in pg_locks, 0 for others.
func levelOf(mode string) int {
	return 1 + slices.Index([]string{"AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock",
		"ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"}, mode)
}

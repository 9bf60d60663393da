package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"shardproxy/catalog"
)

// bring copies the source's rows of the ranges into tables on the targets, made for
// it within the transaction; temporary ones cannot be used in one that prepares.
func (r *repair) bring(ctx context.Context, j *job) error {
	columns := list("", j.table.writable())
	for _, i := range j.targets {
		if err := r.sessions[i].exec(ctx, fmt.Sprintf("CREATE TABLE %s AS SELECT %s FROM %s WITH NO DATA", j.stage, list("t", j.table.writable()), j.table.from("t"))); err != nil {
			return fmt.Errorf("shard %s: %w", r.sessions[i].Shard, err)
		}
	}
	if err := r.stream(ctx, j,
		fmt.Sprintf("COPY (SELECT %s FROM %s WHERE %s) TO STDOUT", list("t", j.table.writable()), j.table.from("t"), j.table.within("t", j.ranges)),
		fmt.Sprintf("COPY %s (%s) FROM STDIN", j.stage, columns)); err != nil {
		return err
	}
	for _, i := range j.targets {
		sql := "ANALYZE " + j.stage
		if j.table.ranges {
			sql = fmt.Sprintf("CREATE INDEX ON %s (%s); ", j.stage, list("", j.table.key)) + sql
		}
		if err := r.sessions[i].exec(ctx, sql); err != nil {
			return fmt.Errorf("shard %s: %w", r.sessions[i].Shard, err)
		}
	}
	return nil
}

// stream runs a COPY on the source into one on each target. The text format means
// the same on all: types that somebody made have other OIDs on each shard, which
// the binary format holds.
func (r *repair) stream(ctx context.Context, j *job, out, in string) error {
	var group sync.WaitGroup
	errs := make([]error, len(j.targets))
	writers, pipes := make([]io.Writer, len(j.targets)), make([]*io.PipeWriter, len(j.targets))
	for n, i := range j.targets {
		reader, writer := io.Pipe()
		writers[n], pipes[n] = writer, writer
		s := r.sessions[i]
		group.Go(func() {
			if _, err := s.conn.PgConn().CopyFrom(ctx, reader, in); err != nil {
				errs[n] = fmt.Errorf("shard %s: %w", s.Shard, err)
			}
			_ = reader.CloseWithError(errors.Join(errs[n], io.ErrClosedPipe)) // it never fails
		})
	}
	source := r.sessions[r.source]
	_, err := source.conn.PgConn().CopyTo(ctx, io.MultiWriter(writers...), out)
	if err != nil {
		err = fmt.Errorf("shard %s: %w", source.Shard, err)
	}
	for _, p := range pipes {
		_ = p.CloseWithError(err) // nil ends the rows
	}
	group.Wait()
	for _, e := range errs {
		if e != nil && (err == nil || code(e) != "") {
			return e
		}
	}
	return err
}

// remove deletes the rows that the source does not have.
func (r *repair) remove(ctx context.Context, j *job, s *Session, did *Repaired) (err error) {
	t := j.table
	if len(t.key) == 0 {
		did.Deleted, err = s.write(ctx, fmt.Sprintf(`DELETE FROM %[1]s WHERE (t.tableoid, t.ctid) IN (SELECT a.o, a.c FROM
			(SELECT x.tableoid AS o, x.ctid AS c, %[2]s AS r, row_number() OVER (PARTITION BY %[2]s) AS n FROM %[3]s) AS a
			LEFT JOIN (SELECT %[4]s AS r, count(*) AS n FROM %[5]s AS s GROUP BY 1) AS b ON b.r = a.r WHERE a.n > coalesce(b.n, 0))`,
			t.from("t"), rowText("x", t.writable()), t.from("x"), rowText("s", t.writable()), j.stage))
		return err
	}
	gone := fmt.Sprintf("NOT EXISTS (SELECT FROM %s AS s WHERE %s)", j.stage, t.matches("s", "t"))
	if err := r.guard(ctx, j, s, t.from("t"), gone, func(fk *catalog.ForeignKey) catalog.Action { return fk.OnDelete }); err != nil {
		return err
	}
	if always := t.always(); len(always) > 0 { // which no UPDATE may set
		gone += fmt.Sprintf(" OR EXISTS (SELECT FROM %s AS s WHERE %s AND %s <> %s)", j.stage, t.matches("s", "t"), rowText("s", always), rowText("t", always))
	}
	did.Deleted, err = s.write(ctx, fmt.Sprintf("DELETE FROM %s WHERE %s AND (%s)", t.from("t"), t.within("t", j.ranges), gone))
	return err
}

// always returns the columns that are GENERATED ALWAYS AS IDENTITY.
func (t *table) always() (all []column) {
	for _, c := range t.columns {
		if c.always {
			all = append(all, c)
		}
	}
	return all
}

// put updates the rows that differ and inserts those that are missing.
func (r *repair) put(ctx context.Context, j *job, s *Session, did *Repaired) (err error) {
	t := j.table
	columns := list("", t.writable())
	if len(t.key) == 0 {
		did.Inserted, err = s.write(ctx, fmt.Sprintf(`INSERT INTO %[1]s (%[2]s) OVERRIDING SYSTEM VALUE SELECT %[3]s FROM
			(SELECT s.*, %[4]s AS "shardproxy r", row_number() OVER (PARTITION BY %[4]s) AS "shardproxy n" FROM %[5]s AS s) AS a
			LEFT JOIN (SELECT %[6]s AS r, count(*) AS n FROM %[7]s GROUP BY 1) AS b ON b.r = a."shardproxy r" WHERE a."shardproxy n" > coalesce(b.n, 0)`,
			t.sql(), columns, list("a", t.writable()), rowText("s", t.writable()), j.stage, rowText("x", t.writable()), t.from("x")))
		return err
	}
	if err := r.update(ctx, j, s, did); err != nil {
		return err
	}
	did.Inserted, err = s.write(ctx, fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s WHERE NOT EXISTS (SELECT FROM %s WHERE %s)",
		t.sql(), columns, list("s", t.writable()), j.stage, t.from("t"), t.matches("s", "t")))
	return err
}

func (r *repair) update(ctx context.Context, j *job, s *Session, did *Repaired) (err error) {
	t := j.table
	set := ""
	for _, c := range t.writable() {
		if !c.always {
			if set != "" {
				set += ", "
			}
			set += quoted(c.name) + " = s." + quoted(c.name)
		}
	}
	if set == "" {
		return nil
	}
	differs := fmt.Sprintf("%s AND %s AND %s <> %s", t.within("t", j.ranges), t.matches("s", "t"), rowText("s", t.writable()), rowText("t", t.writable()))
	err = r.guardUpdate(ctx, j, s, differs)
	if err == nil {
		did.Updated, err = s.write(ctx, fmt.Sprintf("UPDATE %s SET %s FROM %s AS s WHERE %s", t.from("t"), set, j.stage, differs))
	}
	return err
}

package verify

import (
	"context"
	"fmt"
	"strings"

	"shardproxy/catalog"
)

// A foreign key that forbids is PostgreSQL's to tell. One that cascades would change
// rows of other tables, which nobody has asked for, and which no copy brings back.

// guard fails when rows of other tables refer, by foreign keys that act, to rows of the
// ranges for which a condition holds. from has them as t.
func (r *repair) guard(ctx context.Context, j *job, s *Session, from, condition string, action func(*catalog.ForeignKey) catalog.Action) error {
	t, _ := s.Catalog.Table(j.Schema, j.Name, s.Catalog.SystemPath())
	for _, fk := range t.ReferencedBy {
		if a := action(fk); a == catalog.NoAction || a == catalog.Restrict || fk.Inherited || fk.Table == t {
			continue
		}
		var n int64
		err := s.row(ctx, fmt.Sprintf("SELECT count(*) FROM %s AS c WHERE EXISTS (SELECT FROM %s WHERE %s AND %s AND %s)",
			quoted(fk.Table.Schema, fk.Table.Name), from, refers(fk), j.table.within("t", j.ranges), condition)).Scan(&n)
		if err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%w: %d of %s refer by foreign key %s to rows that would go or change, and would be changed with them (ON DELETE or ON UPDATE does that)",
				ErrInTheWay, n, quoted(fk.Table.Schema, fk.Table.Name), quoted(fk.Name))
		}
	}
	return nil
}

// guardUpdate is guard for rows t that an UPDATE from rows s changes, as far as it
// changes what others refer to.
func (r *repair) guardUpdate(ctx context.Context, j *job, s *Session, differs string) error {
	t, _ := s.Catalog.Table(j.Schema, j.Name, s.Catalog.SystemPath())
	for _, fk := range t.ReferencedBy {
		var columns []column
		for _, n := range fk.ReferencedColumns {
			for i := range t.Columns {
				if t.Columns[i].Number == n {
					columns = append(columns, column{name: t.Columns[i].Name})
				}
			}
		}
		err := r.guard(ctx, j, s, fmt.Sprintf("%s, %s AS s", j.table.from("t"), j.stage),
			fmt.Sprintf("%s AND %s <> %s", differs, rowText("s", columns), rowText("t", columns)),
			func(other *catalog.ForeignKey) catalog.Action {
				if other != fk {
					return catalog.NoAction
				}
				return fk.OnUpdate
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// refers is the condition that a row c refers to a row t. The columns' own operators
// serve, as in the foreign key.
func refers(fk *catalog.ForeignKey) string {
	name := func(t *catalog.Table, number int16) string {
		for i := range t.Columns {
			if t.Columns[i].Number == number {
				return quoted(t.Columns[i].Name)
			}
		}
		return ""
	}
	var all []string
	for i := range fk.Columns {
		all = append(all, "c."+name(fk.Table, fk.Columns[i])+" = t."+name(fk.References, fk.ReferencedColumns[i]))
	}
	return strings.Join(all, " AND ")
}

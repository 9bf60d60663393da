package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// odd are settings of a session that change what statements give, and how it looks.
const odd = `SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German, DMY'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape';
	SET extra_float_digits = -8; SET search_path = side, public, pg_catalog; SET standard_conforming_strings = off; SET transform_null_equals = on;
	SET enable_hashagg = off; SET xmlbinary = 'hex'`

// sessions runs the statements over all shards in sessions with other settings, several in
// one batch, and in transactions.
func (b *both) sessions(t *testing.T) {
	b.onBoth(t, odd)
	i := 0
	for st := range fanLines(t) {
		m := []mode{modes[0], modes[2]}[i%2]
		if i++; st.varies || slices.ContainsFunc(st.args, isTyped) {
			continue
		}
		b.compare(t, st, m, false)
		if st.wrong != "" {
			t.Error("with other settings:", st.wrong)
		}
	}
	b.again()
	b.batches(t)
}

// batches sends them ten at a time, all of which are answered somehow alone.
func (b *both) batches(t *testing.T) {
	var some []*statement
	for st := range fanLines(t) {
		if st.varies || st.code || slices.ContainsFunc(st.args, isTyped) || strings.Contains(st.sql, ";") || strings.HasPrefix(st.sql, "COPY") {
			continue
		}
		got := ask(t, b.proxy, modes[1], st.sql, st.args)
		if got.err != nil {
			continue
		}
		if some = append(some, st); len(some) == 10 {
			b.batch(t, some)
			some = nil
		}
	}
}

func (b *both) batch(t *testing.T, some []*statement) {
	ctx := within(t, 30*time.Second)
	sides := [2][]answer{}
	for i, c := range []*pgx.Conn{b.proxy, b.direct} {
		batch := &pgx.Batch{}
		for _, st := range some {
			batch.Queue(st.sql, st.args...)
		}
		results := c.SendBatch(ctx, batch)
		for _, st := range some {
			rows, err := results.Query()
			if err != nil {
				o := answer{}
				o.fail(t, st.sql, err)
				sides[i] = append(sides[i], o)
				continue
			}
			sides[i] = append(sides[i], read(t, st.sql, rows))
		}
		_ = results.Close() // its error is that of a statement
	}
	for i, st := range some {
		if sides[0][i].refused() != "" {
			t.Logf("refused in a batch: %s: %s", sides[0][i].refused(), st.line)
			return // and so are those behind it
		}
		if d := st.difference(&sides[0][i], &sides[1][i]); d != "" {
			t.Errorf("%s, in a batch: %s", st.line, d)
		}
	}
}

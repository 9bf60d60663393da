package main

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"testing"

	"shardproxy/config"
	"shardproxy/wire"
)

// The configuration over shards is accepted, and has two of them and rules for
// all tables of the part.
func TestShardsAreConfigured(t *testing.T) {
	c := baseSettings()
	c.overShards("127.0.0.1:7004")
	parsed := parsedSettings(t, c)
	d := parsed.Databases[0]
	if len(d.Shards) != 2 || d.Name != shardsDatabase || len(d.Tables) != 8 || d.Pool.Size != c.poolSize {
		t.Errorf("%+v", d)
	}
	if changed := config.Diff(parsedSettings(t, baseSettings()), parsed); len(changed) == 0 {
		t.Error("shards change nothing")
	}
}

func TestKeyedRows(t *testing.T) {
	o, err := parseOptions([]string{"-shard-clients", "3", "-modes", "prepared,extended"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.keyedRows(); !slices.Equal(got, []string{"select prepared 3", "insert prepared 3"}) {
		t.Errorf("rows are %q", got)
	}
	if o, err = parseOptions(nil, nil); err != nil || !o.wants("shards") {
		t.Errorf("by default the parts are %v, %v", o.parts, err)
	}
}

// Every row of a COPY has its own key, and none stands in two frames.
func TestKeyedFrames(t *testing.T) {
	for _, least := range []int{1, 8 << 10} {
		p, rows, last := keyedFrames(least), 0, byte(0)
		for len(p) > 0 {
			size := int(binary.BigEndian.Uint32(p[1:])) + 1
			last = p[0]
			if last == wire.MsgCopyData {
				if p[size-1] != '\n' {
					t.Fatal("a row ends in another frame")
				}
				for line := range bytes.Lines(p[5:size]) {
					key, rest, _ := strings.Cut(string(line), "\t")
					rows++
					if key != strconv.Itoa(rows) || len(rest) != bulkRowBytes+1 {
						t.Fatalf("row %d is %q", rows, line)
					}
				}
			}
			p = p[size:]
		}
		if rows != bulkRows || last != wire.MsgCopyDone {
			t.Errorf("%d rows, %c at the end", rows, last)
		}
	}
}

// Two shards are divided by PgBouncer and by one shard, each in its round, and
// held against the goals.
func TestKeyedTables(t *testing.T) {
	m := &measurement{stage: &stage{options: options{modes: []string{"prepared"}, shardClients: []int{8}}}, keyed: rounds{}, keyedCopy: rounds{}}
	for _, v := range []float64{1, 10} {
		for side, factor := range map[string]float64{pgbouncerName: 1, proxyName: 2, shardsName: 3} {
			m.keyed.add("select prepared 8", side, "cpu", v*factor)
			m.keyedCopy.add("COPY IN, a row", side, "speed", v*factor)
		}
	}
	if got, want := m.keyedTable()[3], []string{"select", "prepared", "8", shardsName, "-", "-", "-", "-", "16.5",
		"3.00 (3.00-3.00)", "1.50 (1.50-1.50)", "-", "-"}; !slices.Equal(got, want) {
		t.Errorf("statements: %q", got)
	}
	if got, want := m.keyedCopyTable()[6], []string{"COPY IN, a row", shardsName, "16", "3.00 (3.00-3.00)", "1.50", "-", "-", "-"}; !slices.Equal(got, want) {
		t.Errorf("COPY: %q", got)
	}
	want := table{
		{"CPU a statement, keyed select, prepared, 8 clients, 2 shards / PgBouncer", "at most 1.15", "3.00 (3.00-3.00)", "no"},
		{"COPY IN, a row, keyed, MB/s, 2 shards / PgBouncer", "at least 1.00", "3.00 (3.00-3.00)", "yes"},
	}
	if got := m.goalTable()[1:]; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("goals: %q", got)
	}
}

// A part that was not measured has no tables and no goals.
func TestKeyedUnmeasured(t *testing.T) {
	m := &measurement{stage: &stage{options: options{shardClients: []int{8}}}}
	if got := m.goalTable(); len(got) != 1 {
		t.Errorf("goals: %q", got)
	}
}

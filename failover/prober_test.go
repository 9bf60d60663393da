package failover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/wire"
)

func TestRecordEnd(t *testing.T) {
	const page, segment = 8192, 16 << 20
	for _, c := range []struct{ insert, want LSN }{
		{segment + segmentHeader, segment},                               // a new segment
		{segment + page + pageHeader, segment + page},                    // a new page
		{segment + page + segmentHeader, segment + page + segmentHeader}, // a record that ends there
		{segment + pageHeader, segment + pageHeader},                     // cannot be: left alone
		{segment + 5000, segment + 5000},
		{0, 0},
	} {
		if got := recordEnd(c.insert, page, segment); got != c.want {
			t.Errorf("recordEnd(%v) = %v, want %v", c.insert, got, c.want)
		}
	}
	if recordEnd(segmentHeader, 0, 0) != segmentHeader {
		t.Error("unknown sizes change the position")
	}
}

// row returns a valid answer of a primary with some columns replaced; "" is
// NULL.
func row(change map[int]string) [][]byte {
	texts := strings.Split("f|-5|0000000A0000000000000004|67461192|67461192|||||1795231201672258|1795230000000000|off|8192|16777216", "|")
	for i, v := range change {
		texts[i] = v
	}
	var out [][]byte
	for _, v := range texts {
		if v == "" {
			out = append(out, nil)
		} else {
			out = append(out, []byte(v))
		}
	}
	return out
}

func TestDecodeProbe(t *testing.T) {
	o, err := decodeProbe(row(nil))
	if err != nil || o.InRecovery || o.Timeline != 10 || o.Insert != 67461192 || o.SystemID != 1<<64-5 || o.ReadOnly {
		t.Fatalf("%+v, %v", o, err)
	}
	replica := map[int]string{0: "t", 2: "", 3: "", 4: "", 5: "500", 6: "600", 7: "3", 8: "1795230810374447"}
	o, err = decodeProbe(row(replica))
	if err != nil || !o.InRecovery || o.Timeline != 3 || o.Replay != 500 || o.Receive != 600 || o.ReplayedAt.UnixMicro() != 1795230810374447 {
		t.Fatalf("%+v, %v", o, err)
	}
	// An answer that is not whole is an error, never a primary.
	for column, text := range map[int]string{0: "", 1: "", 2: "", 3: "-1", 9: "x", 11: ""} {
		if o, err := decodeProbe(row(map[int]string{column: text})); err == nil {
			t.Errorf("column %d %q: %+v", column, text, o)
		}
	}
	if _, err := decodeProbe(row(nil)[:5]); err == nil {
		t.Error("a short row is accepted")
	}
}

func FuzzDecodeProbe(f *testing.F) {
	f.Add("f|5|0000000A0000000000000004|1|1|||||1|1|off|8192|16777216")
	f.Add("t|5||||7|7|3|1|1|1|on|8192|16777216")
	f.Fuzz(func(t *testing.T, text string) {
		var fields [][]byte
		for v := range strings.SplitSeq(text, "|") {
			if v == "" {
				fields = append(fields, nil)
			} else {
				fields = append(fields, []byte(v))
			}
		}
		o, err := decodeProbe(fields)
		if err == nil && (o.Timeline == 0 || o.SystemID == 0 || len(fields) != probeColumns || fields[0] == nil) {
			t.Fatalf("%q is %+v", text, o)
		}
	})
}

func TestEvidence(t *testing.T) {
	pg := func(code string) error { return fmt.Errorf("connect: %w", &pgconn.PgError{Code: code}) }
	for name, c := range map[string]struct {
		err      error
		kind     EventKind
		suspects bool
		silent   bool
	}{
		"refused":          {fmt.Errorf("dial: %w", syscall.ECONNREFUSED), Gone, true, false},
		"reset":            {syscall.ECONNRESET, Failed, true, false},
		"end of file":      {io.ErrUnexpectedEOF, Failed, true, false},
		"timeout":          {fmt.Errorf("read: %w", os.ErrDeadlineExceeded), Failed, true, true},
		"probe timeout":    {context.DeadlineExceeded, Failed, true, true},
		"cancelled":        {context.Canceled, Failed, false, false},
		"shutdown":         {pg("57P01"), Gone, true, false},
		"crash":            {pg("57P02"), Gone, true, false},
		"starting":         {pg("57P03"), Gone, true, false},
		"unreachable":      {fmt.Errorf("dial: %w", syscall.EHOSTUNREACH), Failed, true, true},
		"too many":         {pg("53300"), Saturated, false, false},
		"read-only":        {pg("25006"), Failed, true, false},
		"wrong password":   {pg("28P01"), Failed, false, false},
		"a unique key":     {pg("23505"), Failed, false, false},
		"ours, connection": {wire.Errorf("08006", "lost"), Failed, true, false},
		"ours, with cause": {wire.Errorf("XX000", "lost").WithCause(syscall.EPIPE), Failed, true, false},
		"ours, too many":   {wire.Errorf("53300", "pool is full"), Saturated, false, false},
		"ours, syntax":     {wire.Errorf("42601", "no"), Failed, false, false},
		"some other error": {errors.New("x"), Failed, false, false},
	} {
		if got := classify(c.err); got != c.kind {
			t.Errorf("%s: kind %d, want %d", name, got, c.kind)
		}
		if got := speaksAgainst(c.err); got != c.suspects {
			t.Errorf("%s: suspects %v", name, got)
		}
		if got := isSilence(c.err); got != c.silent {
			t.Errorf("%s: silent %v", name, got)
		}
	}
}

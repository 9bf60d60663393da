package drivertest

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"shardproxy/internal/clientrun"
)

// sectionTimeout bounds one section of a script written in Go.
const sectionTimeout = 3 * time.Minute

// bigBytes is the length of the largest values exchanged: well over every buffer
// and the bound on texts that are parsed. Larger ones cost the drivers minutes
// under the race detector; the memory that they take is tested in cmd/shardproxy.
const bigBytes = 16 << 20

// teller writes a transcript and knows where its script is connected.
type teller struct {
	leg
	text strings.Builder
}

// goSection is one section of a script written in Go. What it returns is a
// failure.
type goSection struct {
	name string
	run  func(context.Context, *teller) error
}

// runSections runs a script written in Go over one leg.
func runSections(l leg, sections []goSection) (string, error) {
	w := &teller{leg: l}
	failed := 0
	for _, s := range sections {
		w.say("%s%s", clientrun.SectionMark, s.name)
		ctx, cancel := context.WithTimeout(context.Background(), sectionTimeout)
		if err := w.guarded(ctx, s); err != nil {
			failed++
			w.say("%s: %v", clientrun.FailureMark, err)
			if ctx.Err() != nil {
				w.say("it hung")
			}
		}
		cancel()
	}
	if failed > 0 {
		return w.text.String(), fmt.Errorf("%d sections failed", failed)
	}
	return w.text.String(), nil
}

// guarded runs a section and makes a panic of check a failure.
func (w *teller) guarded(ctx context.Context, s goSection) (err error) {
	defer func() {
		if failure, ok := recover().(checkFailure); ok {
			err = failure.err
		}
	}()
	return s.run(ctx, w)
}

// checkFailure carries an unexpected error out of a section.
type checkFailure struct{ err error }

// check ends the section when there is an error that was not expected.
func check(err error) {
	if err == nil {
		return
	}
	_, file, line, _ := runtime.Caller(1)
	panic(checkFailure{fmt.Errorf("%s:%d: %w", file[strings.LastIndexByte(file, '/')+1:], line, err)})
}

// must returns the value, or ends the section.
func must[T any](value T, err error) T {
	if err != nil {
		_, file, line, _ := runtime.Caller(1)
		panic(checkFailure{fmt.Errorf("%s:%d: %w", file[strings.LastIndexByte(file, '/')+1:], line, err)})
	}
	return value
}

// say writes one line of the transcript.
func (w *teller) say(format string, args ...any) {
	fmt.Fprintf(&w.text, format+"\n", args...)
}

// refused writes how a call failed; that it succeeds is a failure.
func (w *teller) refused(what string, err error) {
	var ours *pgconn.PgError
	var theirs *pq.Error
	switch {
	case err == nil:
		w.say("%s: %s succeeded", clientrun.FailureMark, what)
	case errors.As(err, &ours):
		w.say("%s: %s %s %q detail %q hint %q position %d where %q on %q.%q.%q type %q constraint %q", what, ours.Severity, ours.Code, ours.Message,
			ours.Detail, ours.Hint, ours.Position, ours.Where, ours.SchemaName, ours.TableName, ours.ColumnName, ours.DataTypeName, ours.ConstraintName)
	case errors.As(err, &theirs):
		w.say("%s: %s %s %q detail %q hint %q position %s where %q on %q.%q.%q type %q constraint %q", what, theirs.Severity, theirs.Code, theirs.Message,
			theirs.Detail, theirs.Hint, theirs.Position, theirs.Where, theirs.Schema, theirs.Table, theirs.Column, theirs.DataTypeName, theirs.Constraint)
	default:
		w.say("%s: %v", what, err)
	}
}

// waitRunning returns when a statement that holds the mark runs, on whatever
// node.
func (w *teller) waitRunning(ctx context.Context, mark string) error {
	var conns []*pgx.Conn
	for _, port := range w.nodes {
		conn, err := pgx.Connect(ctx, w.nodeDSN(port))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		conns = append(conns, conn)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, conn := range conns {
			var running bool
			if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"+
				" AND state = 'active' AND pid <> pg_backend_pid() AND position($1 in query) > 0)", mark).Scan(&running); err != nil || running {
				return err
			}
		}
		<-tick.C
	}
}

func sum(text []byte) string {
	hash := md5.Sum(text)
	return hex.EncodeToString(hash[:])
}

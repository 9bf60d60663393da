package ormtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/clientrun"
)

// sectionTimeout bounds one section of an application written in Go.
const sectionTimeout = time.Minute

// teller writes the transcript of an application written in Go.
type teller struct {
	leg
	text strings.Builder
}

// goSection is one section of such an application.
type goSection struct {
	name string
	run  func(context.Context)
}

// runSections runs an application over one leg. A panic of check fails its
// section, and the next ones run all the same.
func (w *teller) runSections(sections []goSection) (string, error) {
	failed := 0
	for _, s := range sections {
		w.say("%s%s", clientrun.SectionMark, s.name)
		ctx, cancel := context.WithTimeout(context.Background(), sectionTimeout)
		if err := guarded(ctx, s); err != nil {
			failed++
			w.say("%s: %v", clientrun.FailureMark, err)
		}
		cancel()
	}
	if failed > 0 {
		return w.text.String(), fmt.Errorf("%d sections failed", failed)
	}
	return w.text.String(), nil
}

func guarded(ctx context.Context, s goSection) (err error) {
	defer func() {
		switch failure := recover().(type) {
		case nil:
		case checkFailure:
			err = failure.err
		default: // a bug, or what follows from a section that failed
			err = fmt.Errorf("panic: %v", failure)
		}
	}()
	s.run(ctx)
	return nil
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

func (w *teller) say(format string, args ...any) {
	fmt.Fprintf(&w.text, format+"\n", args...)
}

// refused tells how something failed that had to.
func (w *teller) refused(what string, err error) {
	var e *pgconn.PgError
	switch {
	case err == nil:
		w.say("%s: %s succeeded", clientrun.FailureMark, what)
	case errors.As(err, &e):
		w.say("%s: %s %s", what, e.Code, e.ConstraintName)
	default:
		w.say("%s: %v", what, err)
	}
}

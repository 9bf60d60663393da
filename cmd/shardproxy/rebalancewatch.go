package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"shardproxy/config"
	"shardproxy/metadata"
)

// watchEach is the time between two looks of rebalance watch.
const watchEach = 500 * time.Millisecond

func rebalanceWatchCommand() *cobra.Command {
	var f moveFlags
	c := &cobra.Command{
		Use:   "watch",
		Short: "Follow the moves until none is left",
		Long: "Watch draws a bar for each move on a terminal, and else prints a line for each phase that a move comes to, and while one is under way\n" +
			"how far it is. It ends when no move is left but those that wait for complete or rollback: exit code 0 when all are done, 1 when one was given up.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.withHome(cmd, func(ctx context.Context, home *pgx.Conn, conf *config.Database) error {
				w := &moveWatch{out: cmd.OutOrStdout(), bars: isTerminal(cmd.OutOrStdout()), last: map[int64]string{}, known: map[int64]*moveBar{}}
				return w.run(ctx, home, conf)
			})
		},
	}
	f.add(c)
	return c
}

// isTerminal reports whether what is written can be drawn over.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("TERM") != "dumb"
}

// moveWatch prints what changes.
type moveWatch struct {
	out   io.Writer
	bars  bool
	drawn int              // lines on the terminal that are drawn over next
	last  map[int64]string // what was printed of each move
	known map[int64]*moveBar
}

func (w *moveWatch) run(ctx context.Context, home *pgx.Conn, conf *config.Database) error {
	failed := false
	for first := true; ; first = false {
		s, err := readMoveStatus(ctx, home, conf, true)
		if err != nil {
			return err
		}
		var ended, going []string
		waits := true // none goes on by itself
		for i := range s.Moves {
			m := &s.Moves[i]
			bar, over := w.known[m.ID], metadata.MovePhase(m.Phase).Ended()
			if bar == nil {
				bar = &moveBar{ended: first && over}
				w.known[m.ID] = bar
			}
			switch {
			case bar.ended:
			case over:
				bar.ended = true
				failed = failed || m.Phase == string(metadata.MoveAborted)
				ended = append(ended, w.line(m))
			case w.bars:
				waits = waits && m.waits(s.Moves)
				going = append(going, bar.draw(m, time.Now()))
			default:
				waits = waits && m.waits(s.Moves)
				going = append(going, w.line(m))
			}
		}
		if err := w.print(ended, going); err != nil {
			return err
		}
		if waits {
			if failed {
				return &exitError{code: exitBlocked}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchEach):
		}
	}
}

// line is a move's line, "" when that was printed before.
func (w *moveWatch) line(m *movePrinted) string {
	line := m.line()
	if line == w.last[m.ID] {
		return ""
	}
	w.last[m.ID] = line
	return line
}

// print writes what is to stay, and what goes on; this is drawn over the next time on a terminal.
func (w *moveWatch) print(ended, going []string) error {
	var b strings.Builder
	if w.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", w.drawn) // up, and all below away
	}
	for _, line := range append(ended, going...) {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	if w.drawn = 0; w.bars {
		w.drawn = len(going)
	}
	_, err := io.WriteString(w.out, b.String())
	return err
}

// moveBar is what is known of a move from one look to the next.
type moveBar struct {
	ended  bool
	part   float64 // drawn so far: a bar only grows
	copied int64   // at the time of seen
	seen   time.Time
	rate   float64 // rows per second
}

// barWidth is that of a full bar; that of an aborted move goes back to nothing.
const barWidth = 30

// draw returns the move as one line: what it is, a bar, the phase, and while rows are copied how fast and how long still.
func (b *moveBar) draw(m *movePrinted, now time.Time) string {
	b.measure(m, now)
	part := metadata.MoveProgress(metadata.MovePhase(m.Phase), m.Rows, m.Copied, m.Purged)
	if b.part = max(b.part, part); m.Phase == string(metadata.MoveAborting) {
		b.part = 0
	}
	full := int(b.part * barWidth)
	line := fmt.Sprintf("%s [%s%s] %3.0f %%  %s", m.what(), strings.Repeat("#", full), strings.Repeat(".", barWidth-full), b.part*100, m.Phase)
	if m.Copied > 0 {
		line += fmt.Sprintf(", %d rows", m.Copied)
	}
	if b.rate > 0 && m.Phase == string(metadata.MoveCopying) {
		line += fmt.Sprintf(", %.0f/s", b.rate)
		if left := m.Rows - m.Copied; left > 0 {
			line += ", about " + (time.Duration(float64(left)/b.rate*float64(time.Second)) + time.Second).Round(time.Second).String() + " left"
		}
	}
	if m.Said != "" {
		line += "; " + strings.Join(strings.Fields(m.Said), " ")
	}
	const widest = 158 // a line that wraps would not be drawn over
	if len(line) > widest {
		line = strings.ToValidUTF8(line[:widest-3], "") + "..."
	}
	return line
}

// measure takes the rate since the last look, smoothed.
func (b *moveBar) measure(m *movePrinted, now time.Time) {
	if took := now.Sub(b.seen).Seconds(); !b.seen.IsZero() && took > 0 && m.Copied > b.copied {
		rate := float64(m.Copied-b.copied) / took
		if b.rate > 0 {
			rate = 0.7*b.rate + 0.3*rate
		}
		b.rate = rate
	}
	b.copied, b.seen = m.Copied, now
}

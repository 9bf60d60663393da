package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/tally"
)

// Options say what is written down, and where.
type Options struct {
	// To is the path of a file, made with mode 0600 when there is none, or /dev/stdout or /dev/stderr, which may be pipes; "" writes
	// nothing down.
	To             string
	Logins, Orders bool
	Statements     tally.Does // what they do
	Texts          bool       // with their texts, without values
	// Memory bounds the lines that wait to be written, in bytes.
	Memory int
}

// The bits of wanted; those of tally.Does are behind them.
const (
	logins uint32 = 1 << iota
	orders
	texts
	statementBits = iota
)

// How lines are written.
const (
	gather     = 5 * time.Millisecond // from the first line on
	retryAfter = time.Second
	lookEvery  = time.Second // for a file of the name that is another
)

// Log writes events down. Make one with New, begin with Use, end it with Close. All methods may be called from any goroutine;
// those that tell of events never block, and take a nil Log, which wants none.
type Log struct {
	logger  *slog.Logger
	handler slog.Handler
	wanted  atomic.Uint32
	wake    chan struct{} // something waits
	done    chan struct{} // closed by Close
	ended   chan struct{} // closed when the writer is; nil when there is none
	closing sync.Once

	counts   [eventMissing + 1]atomic.Int64
	missing  atomic.Int64
	failures atomic.Int64

	// mu guards what follows, and is never held while anything is written.
	mu    sync.Mutex
	lines []byte
	most  int
	// lost are the lines that found no room since the last line that tells of it.
	lost  int64
	turns []turn

	// The writer's own.
	to      *target // nil for none
	batch   []byte  // taken from before or lines, being written
	written int     // bytes of batch
	failing bool
}

// turn is a target that Use has given and the writer has not come to.
type turn struct {
	before []byte // lines of the time before it, which belong to the target before
	to     *target
}

// New returns a Log that writes nothing down yet. It tells logger when it cannot write, and when it can again.
func New(logger *slog.Logger) *Log {
	l := &Log{logger: logger, wake: make(chan struct{}, 1), done: make(chan struct{})}
	l.handler = slog.NewJSONHandler(queue{l}, &slog.HandlerOptions{ReplaceAttr: ownKeys})
	return l
}

// Use has what the options say written down from now on. An error says why the file cannot be opened; then all is as before.
// The file is opened anew also when its path is the same.
func (l *Log) Use(o Options) error {
	var to *target
	if o.To != "" {
		var err error
		if to, err = open(o.To); err != nil {
			return err
		}
	}
	wanted := uint32(0)
	if to != nil {
		wanted = uint32(o.Statements) << statementBits
		for bit, on := range map[uint32]bool{logins: o.Logins, orders: o.Orders, texts: o.Texts} {
			if on {
				wanted |= bit
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turns = append(l.turns, turn{l.lines, to})
	l.lines = nil
	l.most = o.Memory
	l.wanted.Store(wanted)
	if l.ended == nil && to != nil {
		l.ended = make(chan struct{})
		go l.work(l.ended)
	}
	l.wakes()
	return nil
}

// wakes has the writer look.
func (l *Log) wakes() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// switchTo makes another target the one that is written to.
func (l *Log) switchTo(to *target) {
	if l.to != nil {
		l.to.close()
	}
	l.to = to
	// The line that was half written is written there as a whole.
	for l.written > 0 && l.batch[l.written-1] != '\n' {
		l.written--
	}
	if to == nil {
		l.batch, l.written = l.batch[:0], 0
	}
}

func (l *Log) has(bit uint32) bool { return l != nil && l.wanted.Load()&bit != 0 }

// queue takes the lines that the handler makes.
type queue struct{ l *Log }

var errNoRoom = errors.New("audit: too many lines wait")

// Write implements io.Writer for one line.
func (q queue) Write(line []byte) (int, error) {
	l := q.l
	l.mu.Lock()
	room := l.waitingLocked()+len(line) <= l.most
	if room {
		l.lines = append(l.lines, line...)
	} else {
		l.lost++
	}
	l.mu.Unlock()
	if !room {
		l.missing.Add(1)
		return 0, errNoRoom
	}
	l.wakes()
	return len(line), nil
}

// work writes what waits until Close.
func (l *Log) work(ended chan struct{}) {
	defer close(ended)
	var again <-chan time.Time
	for {
		select {
		case <-l.done:
			_ = l.flush() // it is the last try
			l.switchTo(nil)
			return
		case <-l.wake:
			select {
			case <-time.After(gather):
			case <-l.done:
			}
		case <-again:
		}
		again = nil
		if l.flush() != nil {
			again = time.After(retryAfter)
		}
	}
}

// flush writes what waits.
func (l *Log) flush() error {
	for {
		if l.written == len(l.batch) && !l.take() {
			return nil
		}
		if l.to == nil {
			if l.goesOn() {
				continue
			}
			l.batch, l.written = l.batch[:0], 0 // it is off
			return nil
		}
		if next := l.to.moved(); next != nil {
			l.switchTo(next)
		}
		err := l.to.mend()
		if err == nil {
			var n int
			n, err = l.to.file.Write(l.batch[l.written:])
			l.written += n
		}
		if err != nil {
			l.failures.Add(1)
			if l.goesOn() {
				continue // the next one may take it
			}
			if !l.failing {
				l.failing = true
				l.logger.Error("the audit log cannot be written, lines wait", "file", l.to.path, "error", err)
			}
			return err
		}
		if l.failing {
			l.failing = false
			l.logger.Info("the audit log can be written again", "file", l.to.path)
		}
	}
}

// goesOn goes on to the next target that Use has given; false when there is none. Lines that the one before has not taken go there, too.
func (l *Log) goesOn() bool {
	l.mu.Lock()
	if len(l.turns) == 0 {
		l.mu.Unlock()
		return false
	}
	t := l.turns[0]
	if l.turns = l.turns[1:]; len(l.turns) > 0 {
		l.turns[0].before = append(t.before, l.turns[0].before...)
	} else {
		l.lines = append(t.before, l.lines...)
	}
	l.mu.Unlock()
	l.switchTo(t.to)
	return true
}

// take makes what waits the batch; false when nothing does.
func (l *Log) take() bool {
	for {
		l.mu.Lock()
		if len(l.turns) == 0 || len(l.turns[0].before) > 0 {
			break
		}
		l.mu.Unlock()
		l.goesOn()
	}
	lost := int64(0)
	if len(l.turns) > 0 {
		l.batch, l.turns[0].before = l.turns[0].before, nil
	} else {
		l.batch, l.lines = l.lines, l.batch[:0]
		lost, l.lost = l.lost, 0
	}
	l.mu.Unlock()
	l.written = 0
	if lost > 0 { // they came behind the others
		l.batch = append(l.batch, l.missingLine(lost)...)
	}
	return len(l.batch) > 0
}

// missingLine says how many lines are missing.
func (l *Log) missingLine(n int64) []byte {
	l.counts[eventMissing].Add(1)
	return fmt.Appendf(nil, `{"time":%q,"event":"missing","lines":%d}`+"\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"), n)
}

// Counts are what has been written down since the start.
type Counts struct {
	// Lines are by the words of Events.
	Lines map[string]int64
	// Missing found no room, Failures are attempts to write that have failed.
	Missing, Failures int64
	// Waiting are the bytes that wait to be written.
	Waiting int
	On      bool
}

func (l *Log) waitingLocked() int {
	n := len(l.lines)
	for i := range l.turns {
		n += len(l.turns[i].before)
	}
	return n
}

// Counts returns what has been written down.
func (l *Log) Counts() Counts {
	c := Counts{Lines: map[string]int64{}, Missing: l.missing.Load(), Failures: l.failures.Load(), On: l.wanted.Load() != 0}
	for i, word := range Events() {
		c.Lines[word] = l.counts[i].Load()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Waiting = l.waitingLocked()
	return c
}

// Close has what waits written, until ctx ends at the latest. Nothing is written down afterwards.
func (l *Log) Close(ctx context.Context) {
	l.wanted.Store(0)
	l.closing.Do(func() { close(l.done) })
	l.mu.Lock()
	ended := l.ended
	l.mu.Unlock()
	if ended == nil {
		return
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// target is what lines are written to.
type target struct {
	path   string
	file   *os.File
	looked time.Time
	own    bool // it is ours to close
	fresh  bool // nothing has been written to it yet
}

// open opens a file for lines to be added.
func open(path string) (*target, error) {
	switch path { // which cannot always be opened by their names
	case "/dev/stdout":
		return &target{path: path, file: os.Stdout}, nil
	case "/dev/stderr":
		return &target{path: path, file: os.Stderr}, nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("audit: %s is no regular file", path) // opening a pipe may wait for ever
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return &target{path: path, file: f, looked: time.Now(), own: true, fresh: true}, nil
}

// mend ends the last line of a file that is new to us, where the end of a process or machine has cut it off. It is the writer's to
// call: a file may be opened while lines are being written to it by another name.
func (t *target) mend() error {
	if !t.fresh {
		return nil
	}
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	var last [1]byte
	if size := info.Size(); size > 0 {
		if _, err := t.file.ReadAt(last[:], size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			if _, err := t.file.WriteString("\n"); err != nil {
				return err
			}
		}
	}
	t.fresh = false
	return nil
}

// moved returns what the path leads to when that is not the file any more, as after a rotation; nil otherwise, and when the
// new one cannot be opened.
func (t *target) moved() *target {
	if !t.own || time.Since(t.looked) < lookEvery {
		return nil
	}
	t.looked = time.Now()
	is, err := t.file.Stat()
	if err != nil {
		return nil
	}
	if named, err := os.Stat(t.path); err == nil && os.SameFile(is, named) {
		return nil
	}
	next, err := open(t.path)
	if err != nil {
		return nil // the old one takes them still
	}
	return next
}

func (t *target) close() {
	if t.own {
		_ = t.file.Close() // what was written is the kernel's
	}
}

package metadata

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/shardmap"
	"shardproxy/wire"
)

// Kinds of problems, for errors.Is.
var (
	// ErrNotInitialised: a shard has no cluster row, or the home shard no map.
	ErrNotInitialised = errors.New("not initialised")
	// ErrVersion: the schema has a version that this program does not know, or
	// has yet to upgrade. The facts are in a *VersionError.
	ErrVersion = errors.New("other schema version")
	// ErrSpare: the slot map does not have a shard of the configuration. Nothing is on it.
	ErrSpare = errors.New("no shard of the cluster")
	// ErrInconsistent: rows contradict each other or make no map. What NewMap
	// says of them is in a *shardmap.MapError.
	ErrInconsistent = errors.New("inconsistent rows")
	// ErrOtherCluster: a shard belongs to another cluster or database, or is
	// another shard of this one.
	ErrOtherCluster = errors.New("other cluster or shard")
	// ErrMismatch: the configuration and the stored map are of different
	// shards or slots. The facts are in a *MismatchError.
	ErrMismatch = errors.New("configuration and map differ")
	// ErrConflict: the map was changed by somebody else. The facts are in a
	// *ConflictError.
	ErrConflict = errors.New("map changed meanwhile")
	// ErrOutcome: the connection was lost while a change was committed; only a
	// Load tells whether it was.
	ErrOutcome = errors.New("outcome unknown")
	// ErrAhead: somebody knows a newer epoch, or another map of the same epoch,
	// than the home shard: the home shard has lost a change.
	ErrAhead = errors.New("home shard is behind")
	// ErrUnreachable: a shard could not be reached, did not let the control user
	// in, or the connection was lost. Trying again may help.
	ErrUnreachable = errors.New("unreachable")
	// ErrServer: a server answered with an error that is none of the others.
	ErrServer = errors.New("error of the server")
	// ErrPrivilege: the control user lacks a right.
	ErrPrivilege = errors.New("missing privilege")
	// ErrStandby: the server is in recovery, not a primary.
	ErrStandby = errors.New("not a primary")
	// ErrSetting: a server's version or setting does not do.
	ErrSetting = errors.New("unsuitable server")
	// ErrUnalike: shards differ in what must be the same on all.
	ErrUnalike = errors.New("shards are not alike")
	// ErrSameDatabase: two shards are the same database, or copies of one.
	ErrSameDatabase = errors.New("same database twice")
	// ErrHash: the server computes other hashes than shardmap.
	ErrHash = errors.New("other hash functions")
	// ErrInvalid: the arguments make no sense.
	ErrInvalid = errors.New("invalid arguments")
	// ErrClosed is returned by Watcher.Open after Close.
	ErrClosed = errors.New("metadata: watcher is closed")
)

// Problem is one thing that is wrong, in words for an operator. As an error it
// is its Kind and its Cause.
type Problem struct {
	// Shard is the shard's name; empty when it is about none or about all.
	Shard string
	// Kind is one of the Err variables.
	Kind error
	// Reason says what is wrong, as a whole clause without a full stop.
	Reason string
	// Hint says what to do about it.
	Hint string
	// Warning is set when the cluster works in spite of it.
	Warning bool
	// Cause is the error or the facts behind it; nil when there are none.
	Cause error
}

func (p *Problem) Error() string {
	s := p.Reason
	if p.Shard != "" {
		s = fmt.Sprintf("shard %q: %s", p.Shard, s)
	}
	if p.Hint != "" {
		s += " (hint: " + p.Hint + ")"
	}
	return s
}

func (p *Problem) Unwrap() []error {
	if p.Cause == nil {
		return []error{p.Kind}
	}
	return []error{p.Kind, p.Cause}
}

// CheckError is everything that keeps a cluster from being made or served.
type CheckError struct {
	// Problems are in the order of the shards; never empty, without warnings.
	Problems []*Problem
}

func (e *CheckError) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].Error()
	}
	lines := make([]string, 0, len(e.Problems)+1)
	lines = append(lines, fmt.Sprintf("%d problems:", len(e.Problems)))
	for _, p := range e.Problems {
		lines = append(lines, "  "+p.Error())
	}
	return strings.Join(lines, "\n")
}

func (e *CheckError) Unwrap() []error {
	all := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		all[i] = p
	}
	return all
}

// VersionError says which schema version was found.
type VersionError struct {
	Found, Known int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("schema version %d, this program's is %d", e.Found, e.Known)
}

// MismatchError says how the configuration differs from the stored map.
type MismatchError struct {
	// Diff leads from the stored map to the configuration: Added are shards
	// that only the configuration has. It has no moves and no epochs.
	Diff shardmap.Diff
}

func (e *MismatchError) Error() string { return e.Diff.String() }

// ConflictError says which epoch a change was made from and which it found.
type ConflictError struct {
	From, Found int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the map has epoch %d, the change was made from epoch %d", e.Found, e.From)
}

// SQLSTATEs of servers that mean something here.
const (
	codeNoPrivilege = "42501"
	codeNoTable     = "42P01"
	codeNoColumn    = "42703"
	codeReadOnly    = "25006"
)

const hintRestore = "somebody changed the schema shardproxy by hand; restore its tables from a dump"

// sqlstate returns the SQLSTATE of a server's error, "" for others.
func sqlstate(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// Said returns what a server says is wrong as a *wire.Error, and every other error as it is: then the connection is lost.
func Said(err error) error {
	var said *pgconn.PgError
	if !errors.As(err, &said) {
		return err
	}
	return &wire.Error{Severity: said.SeverityUnlocalized, Code: said.Code, Message: said.Message, Detail: said.Detail, Hint: said.Hint, Where: said.Where}
}

// asked makes a Problem of an error that a server or the way to it gave while
// something was done there.
func asked(shard, doing string, err error) *Problem {
	var already *Problem
	if errors.As(err, &already) {
		return already
	}
	p := &Problem{Shard: shard, Kind: ErrUnreachable, Cause: err, Reason: fmt.Sprintf("cannot %s: %v", doing, err),
		Hint: "see that its primary is up and that the control user can log in"}
	var scan pgx.ScanArgError
	if errors.As(err, &scan) {
		p.Kind, p.Hint = ErrInconsistent, hintRestore
	}
	code := sqlstate(err)
	switch {
	case code == "":
	case slices.Contains([]string{"08", "28", "3D", "53", "57"}, code[:2]):
		// Connections, logins, databases, resources, operators (manual, appendix A).
	default:
		p.Kind, p.Hint = ErrServer, "see the server's log"
	}
	switch code {
	case codeNoPrivilege:
		p.Kind, p.Hint = ErrPrivilege, "use the control user that made the cluster; it owns the schema shardproxy"
	case codeReadOnly:
		p.Kind, p.Hint = ErrStandby, "connect to the shard's primary"
	case codeNoTable, codeNoColumn:
		p.Kind, p.Hint = ErrInconsistent, hintRestore
	}
	return p
}

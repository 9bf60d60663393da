package metadata

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"shardproxy/shardmap"
)

// PostgreSQL's major versions whose hashes and catalogs are known.
const oldest, newest = 13, 18

// judge turns facts into problems, in the order of the shards. It is pure.
type judge struct {
	// making is set when a cluster is made: what was to be decided before is
	// then an error, and a warning once the rows are there. Nobody would want
	// every proxy to refuse its work because one server got a new C library.
	making   bool
	known    int // the schema version
	all      []*facts
	stored   *shardmap.Map // nil when there is none, or it could not be read
	problems []*Problem
}

func (j *judge) add(p Problem) { j.problems = append(j.problems, &p) }

// servers judges all shards' servers, each alone and all together.
func (j *judge) servers() {
	for i, f := range j.all {
		if f.err != nil {
			j.unreachable(i, f)
			continue
		}
		j.settings(f)
		j.rights(f)
		j.alike(f)
		j.same(i, f)
	}
}

// unreachable judges a shard that could not be asked. One that is away while
// the proxy starts will be looked at when it is back; without the home shard
// there is no map.
func (j *judge) unreachable(i int, f *facts) {
	p := asked(f.shard, "ask its server", f.err)
	p.Shard = f.shard
	p.Warning = !j.making && i > 0 && p.Kind == ErrUnreachable
	j.add(*p)
}

// settings judges what one server is and how it is set up.
func (j *judge) settings(f *facts) {
	if f.standby {
		j.add(Problem{Shard: f.shard, Kind: ErrStandby, Reason: "the server is a standby",
			Hint: "the shard has no primary, or the connection did not lead to it"})
	}
	if major := f.version / 10000; major < oldest || major > newest {
		j.add(Problem{Shard: f.shard, Kind: ErrSetting, Reason: fmt.Sprintf("PostgreSQL %d is not supported", major),
			Hint: fmt.Sprintf("use PostgreSQL %d to %d", oldest, newest)})
		return // nothing else was asked
	}
	if f.datetimes != "on" {
		j.add(Problem{Shard: f.shard, Kind: ErrSetting, Reason: "integer_datetimes is " + f.datetimes, Hint: "use a server that stores times as integers"})
	}
	if len(f.wrongHashes) > 0 {
		j.add(Problem{Shard: f.shard, Kind: ErrHash, Reason: "the server computes other hashes than shardproxy: " + strings.Join(f.wrongHashes, ", "),
			Hint: "rows would be looked for in wrong places; use a server on a little-endian machine, with PostgreSQL's own hash functions"})
	}
	j.prepared(f)
	if f.walLevel != "logical" {
		j.add(Problem{Shard: f.shard, Kind: ErrSetting, Warning: true, Reason: "wal_level is " + f.walLevel + ", slots cannot be moved from or to the shard",
			Hint: "set wal_level to logical and restart the server before slots are to move"})
	}
	if f.collation != "" && f.library != "" && f.collation != f.library {
		j.add(Problem{Shard: f.shard, Kind: ErrSetting, Warning: true,
			Reason: fmt.Sprintf("the database was made with version %s of its collation, the server now has %s", f.collation, f.library),
			Hint:   "indexes of text may be out of order: REINDEX DATABASE, then ALTER DATABASE ... REFRESH COLLATION VERSION"})
	}
}

// prepared judges the room for prepared transactions. Of the shards that a
// transaction writes all but one prepare it; with two shards that is every
// second server connection when all commit at once.
func (j *judge) prepared(f *facts) {
	switch {
	case f.prepared == 0:
		j.add(Problem{Shard: f.shard, Kind: ErrSetting, Warning: len(j.all) == 1,
			Reason: "max_prepared_transactions is 0, transactions over several shards cannot commit",
			Hint:   fmt.Sprintf("set max_prepared_transactions to %d (max_connections) and restart the server", f.connections)})
	case f.prepared < f.connections/2:
		j.add(Problem{Shard: f.shard, Kind: ErrSetting, Warning: true,
			Reason: fmt.Sprintf("max_prepared_transactions is %d, less than half of max_connections (%d): commits over several shards may fail under load", f.prepared, f.connections),
			Hint:   fmt.Sprintf("set max_prepared_transactions to %d and restart the server", f.connections)})
	}
}

// rights judges whether the control user can make and own the schema.
func (j *judge) rights(f *facts) {
	switch {
	case f.owner == "" && j.making && !f.mayCreate:
		j.add(Problem{Shard: f.shard, Kind: ErrPrivilege, Reason: fmt.Sprintf("the control user %q may not create a schema", f.user),
			Hint: fmt.Sprintf("GRANT CREATE ON DATABASE ... TO %q, or CREATE SCHEMA shardproxy AUTHORIZATION %q", f.user, f.user)})
	case f.owner != "" && !f.isOwner:
		j.add(Problem{Shard: f.shard, Kind: ErrPrivilege, Reason: fmt.Sprintf("the schema shardproxy belongs to %q, the control user is %q", f.owner, f.user),
			Hint: fmt.Sprintf("use the control user that made the cluster, or GRANT %q TO %q", f.owner, f.user)})
	case f.strangers > 0:
		j.add(Problem{Shard: f.shard, Kind: ErrInconsistent, Reason: fmt.Sprintf("there is a schema shardproxy with %d relations that are not this program's", f.strangers),
			Hint: "rename that schema"})
	}
}

// alike compares a shard with the first that could be asked.
func (j *judge) alike(f *facts) {
	var with *facts
	for _, other := range j.all {
		if other.err == nil {
			with = other
			break
		}
	}
	for _, fact := range []struct{ what, is, should string }{
		{"PostgreSQL's major version", fmt.Sprint(f.version / 10000), fmt.Sprint(with.version / 10000)},
		{"encoding", f.encoding, with.encoding},
		{"collation (LC_COLLATE)", f.collate, with.collate},
		{"character type (LC_CTYPE)", f.ctype, with.ctype},
		{"collation provider", f.provider, with.provider},
		{"collation locale", f.locale, with.locale},
		{"collation rules", f.rules, with.rules},
		{"recorded collation version", f.collation, with.collation},
		{"collation library's version", f.library, with.library},
	} {
		if fact.is != fact.should {
			j.add(Problem{Shard: f.shard, Kind: ErrUnalike, Warning: !j.making || j.stored != nil && slices.Contains(j.stored.Shards(), f.shard),
				Reason: fmt.Sprintf("%s is %s, that of shard %q is %s", fact.what, cmp.Or(fact.is, "none"), with.shard, cmp.Or(fact.should, "none")),
				Hint:   "text must be read, compared and sorted alike on all shards; use the same PostgreSQL, operating system and CREATE DATABASE options"})
		}
	}
}

// same looks for a shard before that is the same database.
func (j *judge) same(i int, f *facts) {
	for _, other := range j.all[:i] {
		if other.err == nil && other.system == f.system && other.databaseOID == f.databaseOID {
			j.add(Problem{Shard: f.shard, Kind: ErrSameDatabase, Reason: fmt.Sprintf("it is the same database as shard %q, or a physical copy of it", other.shard),
				Hint: "give every shard a database of its own; make a server with initdb, not by copying another"})
			return
		}
	}
}

// errors returns the problems that are no warnings, as an error, or nil, and
// the warnings.
func (j *judge) errors() ([]*Problem, error) {
	var warnings, bad []*Problem
	for _, p := range j.problems {
		if p.Warning {
			warnings = append(warnings, p)
		} else {
			bad = append(bad, p)
		}
	}
	if len(bad) > 0 {
		return warnings, &CheckError{bad}
	}
	return warnings, nil
}

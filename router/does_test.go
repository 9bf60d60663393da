package router

import (
	"testing"

	"shardproxy/query"
	"shardproxy/tally"
)

func TestDoes(t *testing.T) {
	for _, c := range []struct {
		sql  string
		want tally.Does
	}{
		{"select 1", tally.Reads},
		{"table t", tally.Reads},
		{"with w as (insert into t values (1) returning a) select * from w", tally.Reads | tally.Writes},
		{"select a into u from t", tally.Defines},
		{"insert into t select * from u", tally.Writes},
		{"update t set a = 1", tally.Writes},
		{"delete from t", tally.Writes},
		{"merge into t using u on t.a = u.a when matched then delete", tally.Writes},
		{"truncate t", tally.Writes},
		{"copy t from stdin", tally.Writes},
		{"copy t to stdout", tally.Reads},
		{"copy (delete from t returning a) to stdout", tally.Reads | tally.Writes},
		{"explain delete from t", tally.Reads},
		{"explain analyze delete from t", tally.Reads | tally.Writes},
		{"declare c cursor for select 1", tally.Reads},
		{"fetch 5 from c", tally.Reads},
		{"prepare p as delete from t", tally.Others},
		{"execute p", tally.Reads | tally.Writes},
		{"create table x as execute p", tally.Calls | tally.Defines},
		{"create temp table x (a int)", tally.Defines},
		{"alter table t add b int", tally.Defines},
		{"grant select on t to public", tally.Defines},
		{"create role r password 'x'", tally.Defines},
		{"drop owned by r", tally.Defines},
		{"comment on table t is 'x'", tally.Defines},
		{"alter system set work_mem = '1GB'", tally.Defines | tally.Others},
		{"call p()", tally.Calls},
		{"do $$ begin end $$", tally.Calls},
		{"vacuum t", tally.Others},
		{"lock t", tally.Others},
		{"set role r", tally.Others},
		{"begin", tally.Others},
		{"insert into t values (1); create table v (a int); select 1", tally.Reads | tally.Writes | tally.Defines},
		{"selec 1", tally.DoesAll},
		{"", 0},
	} {
		f := query.FingerprintOf([]byte(c.sql), query.Options{})
		if got := doesOf(query.Analyze(c.sql, query.Options{}), f.Text); got != c.want {
			t.Errorf("%s does %v, want %v", c.sql, got.Words(), c.want.Words())
		}
	}
}

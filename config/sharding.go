package config

import "strings"

// Table places the rows of one table. One of Key, Reference and Single is set.
type Table struct {
	// Name is the table's, with or without its schema, as SQL has it; its key
	// in the file. Without a schema it is any of that name; see TableRule.
	Name string `yaml:"-"`
	// Key is the columns that place a row of a sharded table, in the order in
	// which they are hashed.
	Key []Identifier `yaml:"key" form:"one" apply:"restart"`
	// Reference is set for a table that has the same rows on every shard.
	Reference bool `yaml:"reference" default:"false" apply:"restart"`
	// Single is set for a table of the home shard, though it has a column of
	// Database.Keys.
	Single bool `yaml:"single" default:"false" apply:"restart"`
	// List places rows by the values of the key, in the order of the file,
	// where it is a map from shards. Neither List nor Range: by hash.
	List []ListEntry `yaml:"list" form:"map" apply:"restart"`
	// Range places rows by ranges of the key, in the order of the file.
	Range []RangeEntry `yaml:"range" apply:"restart"`
	// Default is the shard of keys that List or Range does not have. Default:
	// empty; such rows are refused.
	Default string `yaml:"default" apply:"restart"`
	// PerShardConstraints accepts UNIQUE and foreign keys that hold on each
	// shard and not over all of them. Default: false, they are refused.
	PerShardConstraints bool `yaml:"per_shard_constraints" default:"false" apply:"restart"`
}

// ListEntry is the values of a key that live on one shard.
type ListEntry struct {
	// Name is the shard's; its key in the file.
	Name string `yaml:"-"`
	// Values are texts as the type of the key reads them, at least one.
	Values []string `yaml:"." form:"one" required:"true" blank:"true" apply:"restart"`
}

// RangeEntry is the keys from From up to, but without, To.
type RangeEntry struct {
	// Shard is where they live.
	Shard string `yaml:"shard" required:"true" apply:"restart"`
	// From is the lowest, as the type of the key reads it; nil: no bound.
	From *string `yaml:"from" apply:"restart"`
	// To is the first one beyond; nil: no bound.
	To *string `yaml:"to" apply:"restart"`
}

// SchemaByHash as a Schema's Shard: the shard of the slot that the schema's
// name hashes to.
const SchemaByHash = "hash"

// Schema keeps the tables of a schema, or of many, together.
type Schema struct {
	// Name is the schema's as SQL has it, or what its name begins with and a *;
	// its key in the file.
	Name string `yaml:"-"`
	// Shard is where its tables live, or SchemaByHash.
	Shard string `yaml:"." required:"true" apply:"restart"`
}

// Function says which arguments of a function are a table's key, so that a call
// runs where that row lives.
type Function struct {
	// Name is the function's, with or without its schema, as SQL has it; its
	// key in the file. It stands for every function of that name.
	Name string `yaml:"-"`
	// Arguments count from 1, one for each column of the table's key.
	Arguments []int `yaml:"argument" form:"one" required:"true" min:"1" max:"100" apply:"restart"`
	// Table has the key, with or without its schema. It has a rule in
	// Database.Tables, or Database.Keys is to give it one.
	Table string `yaml:"table" required:"true" apply:"restart"`
}

// TableName returns the parts of Table, folded as SQL folds them; the schema is "" where it
// names none.
func (f *Function) TableName() (schema, name string) {
	schema, name, _ = splitName(f.Table) // Load has looked at it
	return schema, name
}

// ruleIndex finds rules by what they are for: places in Database.Schemas,
// Tables and Functions.
type ruleIndex struct {
	schemas           map[string]int // by name, or by schemaPrefix
	tables, functions map[string]int // by qualified
}

// qualified is the key of a name in a ruleIndex; schema may be empty.
func qualified(schema, name string) string { return schema + "\x00" + name }

// schemaPrefix is the key of a pattern in a ruleIndex.
func schemaPrefix(prefix string) string { return prefix + "\x00*" }

// key returns the key of the rule in a ruleIndex.
func (s *Schema) key() string {
	if prefix, ok := strings.CutSuffix(s.Name, "*"); ok {
		return schemaPrefix(fold(prefix))
	}
	return fold(s.Name)
}

// SchemaRule returns the rule that holds for a schema, named as pg_namespace has
// it, nil for none: the rule of its name, else the longest pattern that matches.
// None holds for PostgreSQL's own schemas and the proxy's.
func (db *Database) SchemaRule(schema string) *Schema {
	if len(db.index.schemas) == 0 || schema == "" || ownSchema(schema) {
		return nil
	}
	if i, ok := db.index.schemas[schema]; ok {
		return &db.Schemas[i]
	}
	for n := len(schema); n >= 0; n-- {
		if i, ok := db.index.schemas[schemaPrefix(schema[:n])]; ok {
			return &db.Schemas[i]
		}
	}
	return nil
}

// TableRule returns the rule of Tables that holds for a table, schema and name
// as pg_class has them, nil for none. A rule without a schema holds in every
// schema for which SchemaRule returns nil. Where there is none, the first column
// of Keys that the table has is its key, unless SchemaRule places it.
func (db *Database) TableRule(schema, name string) *Table {
	if i, ok := db.find(db.index.tables, schema, name); ok {
		return &db.Tables[i]
	}
	return nil
}

// FunctionRule returns the rule that holds for a function, schema and name as
// pg_proc has them, nil for none. A rule without a schema holds as that of a
// table does.
func (db *Database) FunctionRule(schema, name string) *Function {
	if i, ok := db.find(db.index.functions, schema, name); ok {
		return &db.Functions[i]
	}
	return nil
}

func (db *Database) find(index map[string]int, schema, name string) (int, bool) {
	if ownSchema(schema) || db.SchemaRule(schema) != nil {
		return 0, false
	}
	if i, ok := index[qualified(schema, name)]; ok {
		return i, true
	}
	i, ok := index[qualified("", name)]
	return i, ok
}

package config

import (
	"fmt"
	"time"
)

// Cache keeps results of queries in the proxy. It is on when it has a size and names something.
type Cache struct {
	// Size is how many bytes all results that are kept may take; 0: none is kept. Default: 0.
	Size Size `yaml:"size" default:"0" min:"0" max:"1TiB"`
	// Entry is how long a result may be that is kept, in bytes. Default: 256 KiB.
	Entry Size `yaml:"entry" default:"256KiB" min:"1KiB" max:"64MiB"`
	// Tables are those of which results are kept when a query reads no others. Default: none.
	Tables []CachedTable `yaml:"tables" form:"map"`
	// Statements are queries whose results are kept whatever tables they read. Default: none.
	Statements []CachedStatement `yaml:"statements" form:"map"`
}

// CachedTable is a table that may be read from kept results.
type CachedTable struct {
	// Name is the table's, with its schema, as SQL has it; its key in the file.
	Name string `yaml:"-"`
	// For is for how long a result is kept at most.
	For time.Duration `yaml:"." required:"true" min:"1ms" max:"7d"`
}

// TableName returns the parts of Name, folded as SQL folds them.
func (t *CachedTable) TableName() (schema, name string) {
	schema, name, _ = splitName(t.Name) // Load has looked at it
	return schema, name
}

// CachedStatement is a query whose result is kept.
type CachedStatement struct {
	// Name is a text, whose constants do not count, or a fingerprint; its key in the file.
	Name string `yaml:"-"`
	// For is for how long a result is kept at most.
	For time.Duration `yaml:"." required:"true" min:"1ms" max:"7d"`
}

// On reports whether results are kept.
func (c *Cache) On() bool { return c.Size > 0 && len(c.Tables)+len(c.Statements) > 0 }

// cache checks what results are kept of.
func (v *validator) cache(c *Cache, path string) {
	for i := range c.Tables {
		t := &c.Tables[i]
		schema, _, err := splitName(t.Name)
		switch {
		case err != nil || schema == "":
			v.add(joinPath(path+".tables", t.Name), fmt.Sprintf("%q is not a table with its schema", t.Name), "schema.table, as in public.prices")
		case ownSchema(schema):
			v.add(joinPath(path+".tables", t.Name), "results of such tables are not kept", "a table of your own")
		}
	}
	if c.Size > 0 && !c.On() {
		v.add(path+".size", "nothing is named whose results are kept", "name tables or statements")
	}
}

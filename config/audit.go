package config

// Audit says what is written down of who has done what, and where.
type Audit struct {
	// File is the path of the file that lines are added to, or /dev/stdout or /dev/stderr. Default: none; nothing is written down.
	File string `yaml:"file" path:"true"`
	// Logins has logins, refused ones and the ends of sessions written down. Default: true.
	Logins bool `yaml:"logins" default:"true"`
	// Orders has what operators order written down. Default: true.
	Orders bool `yaml:"orders" default:"true"`
	// Statements are written down that do one of these: read, write, ddl, call, other, or that may. Default: ddl.
	Statements []string `yaml:"statements" form:"one" enum:"read|write|ddl|call|other|none" default:"ddl"`
	// Texts has statements written down with their texts, without their values. Default: true.
	Texts bool `yaml:"texts" default:"true"`
	// Memory bounds the lines that wait to be written, in bytes. Default: 4 MiB.
	Memory Size `yaml:"memory" default:"4MiB" min:"64KiB" max:"1GiB"`
}

// NoStatements is the word in Audit.Statements for none.
const NoStatements = "none"

// audit checks what is written down.
func (v *validator) audit(a *Audit) {
	for _, word := range a.Statements {
		switch {
		case word == NoStatements && len(a.Statements) > 1:
			v.add("audit.statements", "has none beside others", "")
			return
		case word != NoStatements && a.File != "" && v.c.Limits.Statements == 0:
			v.add("audit.statements", "needs limits.statements, which is 0", "by what is counted of statements it is known what they do; or give none")
			return
		}
	}
}

package tpch

import "strings"

// The words of the specification's lists.

func colours() []string {
	return strings.Fields(`almond antique aquamarine azure beige bisque black blanched blue blush brown burlywood burnished
		chartreuse chiffon chocolate coral cornflower cornsilk cream cyan dark deep dim dodger drab firebrick floral forest frosted
		gainsboro ghost goldenrod green grey honeydew hot indian ivory khaki lace lavender lawn lemon light lime linen magenta maroon
		medium metallic midnight mint misty moccasin navajo navy olive orange orchid pale papaya peach peru pink plum powder puff
		purple red rose rosy royal saddle salmon sandy seashell sienna sky slate smoke snow spring steel tan thistle tomato turquoise
		violet wheat white yellow`)
}

// types of parts are made of one word of each list.
func types() [3][]string {
	return [3][]string{
		{"STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO"},
		{"ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED"},
		{"TIN", "NICKEL", "BRASS", "STEEL", "COPPER"},
	}
}

// containers are made of one word of each list.
func containers() [2][]string {
	return [2][]string{
		{"SM", "LG", "MED", "JUMBO", "WRAP"},
		{"CASE", "BOX", "BAG", "JAR", "PKG", "PACK", "CAN", "DRUM"},
	}
}

func segments() []string {
	return []string{"AUTOMOBILE", "BUILDING", "FURNITURE", "MACHINERY", "HOUSEHOLD"}
}

func priorities() []string {
	return []string{"1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"}
}

func instructions() []string {
	return []string{"DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"}
}

func shipModes() []string {
	return []string{"REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"}
}

func regions() []string { return []string{"AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"} }

// nations are those of the table in its order, each with its region's number.
func nations() []struct {
	name   string
	region int
} {
	return []struct {
		name   string
		region int
	}{
		{"ALGERIA", 0}, {"ARGENTINA", 1}, {"BRAZIL", 1}, {"CANADA", 1}, {"EGYPT", 4}, {"ETHIOPIA", 0}, {"FRANCE", 3}, {"GERMANY", 3},
		{"INDIA", 2}, {"INDONESIA", 2}, {"IRAN", 4}, {"IRAQ", 4}, {"JAPAN", 2}, {"JORDAN", 4}, {"KENYA", 0}, {"MOROCCO", 0},
		{"MOZAMBIQUE", 0}, {"PERU", 1}, {"CHINA", 2}, {"ROMANIA", 3}, {"SAUDI ARABIA", 4}, {"VIETNAM", 2}, {"RUSSIA", 3},
		{"UNITED KINGDOM", 3}, {"UNITED STATES", 1},
	}
}

// grammar is what comments are made of: parts of speech by their letters, and for each
// letter its words. Small letters are words, N a noun phrase, V a verb phrase, P a
// prepositional phrase.
type grammar struct {
	sentences, nouns, verbs []string
	words                   map[byte][]string
}

func newGrammar() grammar {
	// The last four words are much more frequent than the others.
	comma := func(text string) []string {
		words := strings.Split(text, ",")
		for range 5 {
			words = append(words, words[len(words)-4:]...)
		}
		return words
	}
	return grammar{
		sentences: []string{"N V t", "N V P t", "N V N t", "N P V N t", "N P V P t"},
		nouns:     []string{"n", "j n", "j, j n", "d j n"},
		verbs:     []string{"v", "x v", "v d", "x v d"},
		words: map[byte][]string{
			'n': comma("foxes,ideas,theodolites,pinto beans,instructions,dependencies,excuses,platelets,asymptotes,courts,dolphins,multipliers,sauternes,warthogs,frets,dinos,attainments,somas,Tiresias,patterns,forges,braids,hockey players,frays,warhorses,dugouts,notornis,epitaphs,pearls,tithes,waters,orbits,gifts,sheaves,depths,sentiments,decoys,realms,pains,grouches,escapades,packages,requests,accounts,deposits"),
			'v': comma("sleep,wake,are,cajole,haggle,nag,use,boost,affix,detect,integrate,maintain,nod,was,lose,sublate,solve,thrash,promise,engage,hinder,print,x-ray,breach,eat,grow,impress,mold,poach,serve,run,dazzle,snooze,doze,unwind,kindle,play,hang,believe,doubt"),
			'j': comma("furious,sly,careful,blithe,quick,fluffy,slow,quiet,ruthless,thin,close,dogged,daring,brave,stealthy,permanent,enticing,idle,busy,regular,final,ironic,even,bold,silent,special,pending,unusual,express"),
			'd': comma("sometimes,always,never,furiously,slyly,carefully,blithely,quickly,fluffily,slowly,quietly,ruthlessly,thinly,closely,doggedly,daringly,bravely,stealthily,permanently,enticingly,idly,busily,regularly,finally,ironically,evenly,boldly,silently"),
			'p': comma("about,above,according to,across,after,against,along,alongside of,among,around,at,atop,before,behind,beneath,beside,besides,between,beyond,by,despite,during,except,for,from,in place of,inside,instead of,into,near,of,on,outside,over,past,since,through,throughout,to,toward,under,until,up,upon,without,with,within"),
			'x': comma("do,may,might,shall,will,would,can,could,should,ought to,must,will have to,shall have to,could have to,should have to,must have to,need to,try to"),
			't': {".", ".", ".", ";", ":", "?", "!", "--"},
		},
	}
}

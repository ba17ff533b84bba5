package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
)

// table is kube-proxy's table of one family, as the kernel has it.
type table struct {
	chains map[string][]rule
	// hooks holds the base chains of each hook, in order of priority.
	hooks map[string][]base
	sets  map[string]*set
}

type base struct {
	name     string
	priority float64
}

// rule is a rule's statements in order.
type rule []map[string]any

// set is a set or a map: of a map the values are verdicts.
type set struct {
	exact   map[string]any
	prefix  []netip.Prefix
	timeout int
}

// rules are the tables of both families.
type rules struct {
	v4, v6 *table
}

func readBack() (*rules, error) {
	v4, err := readTable("ip")
	if err != nil {
		return nil, err
	}
	v6, err := readTable("ip6")
	return &rules{v4, v6}, err
}

func readTable(family string) (*table, error) {
	var complaint bytes.Buffer
	command := exec.Command("nft", "--json", "list", "table", family, "kube-proxy")
	command.Stderr = &complaint
	text, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("nft: %w: %s", err, complaint.String())
	}
	return parse(text)
}

// listed is one element of nft's list; libnftables-json(5) describes it.
type listed struct {
	Chain *struct {
		Name     string  `json:"name"`
		Hook     string  `json:"hook"`
		Priority float64 `json:"prio"`
	} `json:"chain"`
	Rule *struct {
		Chain string           `json:"chain"`
		Expr  []map[string]any `json:"expr"`
	} `json:"rule"`
	Set *elements `json:"set"`
	Map *elements `json:"map"`
}

type elements struct {
	Name    string `json:"name"`
	Timeout int    `json:"timeout"`
	Elem    []any  `json:"elem"`
}

func parse(text []byte) (*table, error) {
	var all struct {
		List []listed `json:"nftables"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("what nft lists: %w", err)
	}
	t := &table{map[string][]rule{}, map[string][]base{}, map[string]*set{}}
	for _, one := range all.List {
		var err error
		switch {
		case one.Chain != nil && one.Chain.Hook != "":
			chain := base{one.Chain.Name, one.Chain.Priority}
			t.hooks[one.Chain.Hook] = append(t.hooks[one.Chain.Hook], chain)
		case one.Rule != nil:
			t.chains[one.Rule.Chain] = append(t.chains[one.Rule.Chain], one.Rule.Expr)
		case one.Set != nil:
			t.sets[one.Set.Name], err = newSet(one.Set.Elem, one.Set.Timeout, false)
		case one.Map != nil:
			t.sets[one.Map.Name], err = newSet(one.Map.Elem, one.Map.Timeout, true)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, chains := range t.hooks {
		slices.SortStableFunc(chains, func(a, b base) int { return int(a.priority - b.priority) })
	}
	return t, nil
}

func newSet(list []any, timeout int, isMap bool) (*set, error) {
	s := &set{exact: map[string]any{}, timeout: timeout}
	for _, element := range list {
		var value any
		if isMap {
			pair, ok := element.([]any)
			if !ok || len(pair) != 2 {
				return nil, fmt.Errorf("element %v of a map", element)
			}
			element, value = pair[0], pair[1]
		}
		if err := s.add(element, value); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *set) add(key, value any) error {
	if object, ok := key.(map[string]any); ok {
		if inner, ok := object["elem"].(map[string]any); ok {
			return s.add(inner["val"], value)
		}
		if prefix, ok := object["prefix"].(map[string]any); ok {
			address, err := netip.ParseAddr(fmt.Sprint(prefix["addr"]))
			if err != nil {
				return err
			}
			length, _ := prefix["len"].(float64)
			s.prefix = append(s.prefix, netip.PrefixFrom(address, int(length)))
			return nil
		}
	}
	text, err := canonical(key)
	if err == nil {
		s.exact[text] = value
	}
	return err
}

// canonical is a value as text; values side by side are joined as in nft's own language.
func canonical(value any) (string, error) {
	switch value := value.(type) {
	case string:
		if address, err := netip.ParseAddr(value); err == nil {
			return address.String(), nil
		}
		return value, nil
	case float64:
		return fmt.Sprint(int(value)), nil
	case map[string]any:
		if list, ok := value["concat"].([]any); ok {
			parts := make([]string, len(list))
			for at, part := range list {
				text, err := canonical(part)
				if err != nil {
					return "", err
				}
				parts[at] = text
			}
			return strings.Join(parts, " . "), nil
		}
	}
	return "", fmt.Errorf("a value of unknown form: %v", value)
}

func (s *set) contains(text string) bool {
	if _, found := s.exact[text]; found {
		return true
	}
	address, err := netip.ParseAddr(text)
	inside := func(prefix netip.Prefix) bool { return prefix.Contains(address) }
	return err == nil && slices.ContainsFunc(s.prefix, inside)
}

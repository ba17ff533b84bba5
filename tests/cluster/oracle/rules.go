package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What ends a packet's way through a chain; the empty fate goes on with the next rule.
const (
	accepted = "accept"
	dropped  = "drop"
	rejected = "reject"
	sent     = "backends"
	returned = "return"
)

// How deep chains may call each other.
const depthMax = 16

// walk is one packet's way through a table.
type walk struct {
	*table
	packet   packet
	fields   map[string]string
	backends map[string]bool
	affinity int
}

// ask says what the rules do with the packet.
func (r *rules) ask(question packet) (answer, error) {
	destination, err := netip.ParseAddr(question.Destination)
	if err != nil {
		return answer{}, err
	}
	source, err := netip.ParseAddr(question.Source)
	if err != nil {
		return answer{}, err
	}
	w := walk{table: r.v4, packet: question, backends: map[string]bool{}}
	if destination.Is6() {
		w.table = r.v6
	}
	w.fields = map[string]string{
		"saddr": source.String(), "daddr": destination.String(),
		"l4proto": question.Protocol, "dport": fmt.Sprint(question.Port),
	}
	fate, err := w.hooks(destination)
	if err != nil || fate == "" || fate == accepted {
		return answer{Verdict: "none"}, err
	}
	one := answer{Verdict: fate, AffinityS: w.affinity}
	for backend := range w.backends {
		one.Backends = append(one.Backends, backend)
	}
	slices.Sort(one.Backends)
	return one, nil
}

// hooks takes the packet through the hooks of its way. One that is sent to a backend has ended.
func (w *walk) hooks(destination netip.Addr) (string, error) {
	way := []string{"prerouting", "forward"}
	local := w.sets["nodeport-ips"].contains(destination.String())
	switch {
	case w.packet.Inside && local:
		way = []string{"output", "input"}
	case w.packet.Inside:
		way = []string{"output"}
	case local:
		way = []string{"prerouting", "input"}
	}
	for _, hook := range way {
		for _, chain := range w.table.hooks[hook] {
			fate, err := w.chain(chain.name, 0)
			if err != nil || fate == dropped || fate == rejected || fate == sent {
				return fate, err
			}
		}
	}
	return "", nil
}

func (w *walk) chain(name string, depth int) (string, error) {
	if depth > depthMax {
		return "", fmt.Errorf("chain %s: more than %d deep", name, depthMax)
	}
	for _, rule := range w.chains[name] {
		fate, err := w.rule(rule, depth)
		if err != nil {
			return "", fmt.Errorf("chain %s: %w", name, err)
		}
		if fate == returned {
			return "", nil
		}
		if fate != "" {
			return fate, nil
		}
	}
	return "", nil
}

func (w *walk) rule(rule rule, depth int) (string, error) {
	for _, statement := range rule {
		for kind, value := range statement {
			matched, fate, err := w.statement(kind, value, depth)
			if err != nil || !matched || fate != "" {
				return fate, err
			}
		}
	}
	return "", nil
}

// statement says whether the rule goes on, and what became of the packet.
func (w *walk) statement(kind string, value any, depth int) (bool, string, error) {
	object, _ := value.(map[string]any)
	switch kind {
	case "match":
		matched, err := w.match(object)
		return matched, "", err
	case "accept", "drop", "reject", "jump", "goto", "return":
		fate, err := w.verdict(map[string]any{kind: value}, depth)
		return true, fate, err
	case "vmap":
		fate, err := w.verdictMap(object, depth)
		return true, fate, err
	case "dnat":
		return true, sent, w.translate(object)
	case "set":
		name, _ := object["set"].(string)
		if affinity := w.sets[strings.TrimPrefix(name, "@")]; affinity != nil {
			w.affinity = affinity.timeout
		}
		return true, "", nil
	case "mangle", "masquerade", "counter":
		// Marks for masquerading: of the source, which nobody asks about.
		return true, "", nil
	}
	return false, "", fmt.Errorf("a statement of unknown kind: %s %v", kind, value)
}

func (w *walk) match(match map[string]any) (bool, error) {
	left, err := w.expression(match["left"])
	if err != nil {
		return false, err
	}
	var found bool
	switch right := match["right"].(type) {
	case string:
		if name, isSet := strings.CutPrefix(right, "@"); isSet {
			if w.sets[name] == nil {
				return false, fmt.Errorf("no set %s", name)
			}
			found = w.sets[name].contains(left)
		} else {
			text, _ := canonical(right)
			found = text == left
		}
	default:
		list := []any{right}
		if object, ok := right.(map[string]any); ok && object["set"] != nil {
			list, _ = object["set"].([]any)
		}
		these, err := newSet(list, 0, false)
		if err != nil {
			return false, err
		}
		found = these.contains(left)
	}
	switch match["op"] {
	case "==", "in":
		return found, nil
	case "!=":
		return !found, nil
	}
	return false, fmt.Errorf("a match of unknown kind: %v", match)
}

// expression is the packet's value of an expression.
func (w *walk) expression(value any) (string, error) {
	object, _ := value.(map[string]any)
	field := func(kind, name string) string {
		inner, _ := object[kind].(map[string]any)
		text, _ := inner[name].(string)
		return text
	}
	switch {
	case object["concat"] != nil:
		list, _ := object["concat"].([]any)
		parts := make([]string, len(list))
		for at, part := range list {
			text, err := w.expression(part)
			if err != nil {
				return "", err
			}
			parts[at] = text
		}
		return strings.Join(parts, " . "), nil
	case object["payload"] != nil:
		if text, found := w.fields[field("payload", "field")]; found {
			return text, nil
		}
	case field("meta", "key") == "l4proto":
		return w.fields["l4proto"], nil
	case field("ct", "key") == "state":
		return "new", nil
	case field("fib", "result") == "type":
		// The only address that kube-proxy looks up is the source.
		if w.packet.Inside {
			return "local", nil
		}
		return "unicast", nil
	}
	return "", fmt.Errorf("an expression of unknown kind: %v", value)
}

// verdictMap follows the element that fits the packet; where chance decides, all of them.
func (w *walk) verdictMap(object map[string]any, depth int) (string, error) {
	key, _ := object["key"].(map[string]any)
	if key["numgen"] != nil {
		data, _ := object["data"].(map[string]any)
		list, _ := data["set"].([]any)
		fate := ""
		for _, element := range list {
			pair, ok := element.([]any)
			if !ok || len(pair) != 2 {
				return "", fmt.Errorf("element %v of a map", element)
			}
			next, err := w.verdict(pair[1], depth)
			if err != nil || (fate != "" && next != fate) {
				return "", fmt.Errorf("chance decides between %q and %q: %w", fate, next, err)
			}
			fate = next
		}
		return fate, nil
	}
	name, _ := object["data"].(string)
	verdicts := w.sets[strings.TrimPrefix(name, "@")]
	if verdicts == nil {
		return "", fmt.Errorf("no map %v", object["data"])
	}
	text, err := w.expression(object["key"])
	if err != nil {
		return "", err
	}
	next, found := verdicts.exact[text]
	if !found {
		return "", nil
	}
	return w.verdict(next, depth)
}

func (w *walk) verdict(value any, depth int) (string, error) {
	object, ok := value.(map[string]any)
	if !ok {
		return "", fmt.Errorf("verdict %v", value)
	}
	for kind, inner := range object {
		switch kind {
		case "accept":
			return accepted, nil
		case "drop":
			return dropped, nil
		case "reject":
			return rejected, nil
		case "return":
			return returned, nil
		case "jump", "goto":
			to, _ := inner.(map[string]any)
			name, _ := to["target"].(string)
			fate, err := w.chain(name, depth+1)
			if kind == "goto" && fate == "" {
				// What a chain was gone to for doesn't come back.
				fate = returned
			}
			return fate, err
		}
	}
	return "", fmt.Errorf("a verdict of unknown kind: %v", value)
}

// translate notes every backend that the packet may be sent to.
func (w *walk) translate(object map[string]any) error {
	if port, ok := object["port"].(float64); ok {
		address, err := canonical(object["addr"])
		if err != nil {
			return err
		}
		w.note(address, fmt.Sprint(int(port)))
		return nil
	}
	outer, _ := object["addr"].(map[string]any)
	choice, _ := outer["map"].(map[string]any)
	data, _ := choice["data"].(map[string]any)
	list, ok := data["set"].([]any)
	if !ok {
		return fmt.Errorf("a translation of unknown form: %v", object)
	}
	for _, element := range list {
		pair, _ := element.([]any)
		if len(pair) != 2 {
			return fmt.Errorf("element %v of a map", element)
		}
		text, err := canonical(pair[1])
		address, port, found := strings.Cut(text, " . ")
		if err != nil || !found {
			return fmt.Errorf("backend %v: %w", pair[1], err)
		}
		w.note(address, port)
	}
	return nil
}

func (w *walk) note(address, port string) {
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	w.backends[address+":"+port] = true
}

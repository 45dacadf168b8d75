package simulator

import (
	"net/netip"
	"slices"
	"strconv"
)

// maxFirewallRules is how many rules a server has at most, as documented.
const maxFirewallRules = 1000

// firewallRule is a rule of a server's firewall. The simulator keeps rules, and filters nothing.
type firewallRule struct {
	Action                  string `json:"action"`
	Comment                 string `json:"comment"`
	DestinationAddressEnd   string `json:"destination_address_end"`
	DestinationAddressStart string `json:"destination_address_start"`
	DestinationPortEnd      string `json:"destination_port_end"`
	DestinationPortStart    string `json:"destination_port_start"`
	Direction               string `json:"direction"`
	Family                  string `json:"family"`
	ICMPType                string `json:"icmp_type"`
	Position                string `json:"position"` // from 1
	Protocol                string `json:"protocol"`
	SourceAddressEnd        string `json:"source_address_end"`
	SourceAddressStart      string `json:"source_address_start"`
	SourcePortEnd           string `json:"source_port_end"`
	SourcePortStart         string `json:"source_port_start"`
}

type firewallRuleBody struct {
	FirewallRule firewallRule `json:"firewall_rule"`
}

type firewallRulesBody struct {
	FirewallRules struct {
		FirewallRule []firewallRule `json:"firewall_rule"`
	} `json:"firewall_rules"`
}

// check refuses rules that could not be applied; the codes are the SDK's.
func (r *firewallRule) check() error {
	switch {
	case r.Direction == "":
		return badRequest("DIRECTION_MISSING", "The required attribute 'direction' is missing from the request.")
	case r.Direction != "in" && r.Direction != "out":
		return badRequest("DIRECTION_INVALID", "The direction '%s' is not valid.", r.Direction)
	case r.Action == "":
		return badRequest("ACTION_MISSING", "The required attribute 'action' is missing from the request.")
	case !slices.Contains([]string{"accept", "drop", "reject"}, r.Action):
		return badRequest("ACTION_INVALID", "The action '%s' is not valid.", r.Action)
	case !slices.Contains([]string{"", familyIPv4, familyIPv6}, r.Family):
		return badRequest("IP_ADDRESS_INVALID", "The family '%s' is not valid.", r.Family)
	case !slices.Contains([]string{"", "tcp", "udp", "icmp"}, r.Protocol):
		return badRequest("PROTOCOL_INVALID", "The protocol '%s' is not valid.", r.Protocol)
	case r.Protocol != "" && r.Family == "":
		return badRequest("INVALID_REQUEST", "The attribute 'protocol' needs the attribute 'family'.")
	case r.ICMPType != "" && r.Protocol != "icmp":
		return badRequest("ICMP_TYPE_PROTOCOL_MISMATCH", "The attribute 'icmp_type' needs the protocol 'icmp'.")
	case len(r.Comment) > 250:
		return badRequest("COMMENT_INVALID", "The comment has more than 250 characters.")
	}
	if n, err := strconv.Atoi(r.ICMPType); r.ICMPType != "" && (err != nil || n < 0 || n > 255) {
		return badRequest("ICMP_TYPE_INVALID", "The ICMP type '%s' is not valid.", r.ICMPType)
	}
	err := r.checkRange("SOURCE", r.SourceAddressStart, r.SourceAddressEnd, r.SourcePortStart, r.SourcePortEnd)
	if err != nil {
		return err
	}
	return r.checkRange("DESTINATION", r.DestinationAddressStart, r.DestinationAddressEnd, r.DestinationPortStart,
		r.DestinationPortEnd)
}

func (r *firewallRule) checkRange(side, from, to, firstPort, lastPort string) error {
	start, err := r.address(from)
	if err != nil {
		return badRequest(side+"_ADDRESS_START_INVALID", "The address '%s' is not valid.", from)
	}
	end, err := r.address(to)
	if err != nil || start.IsValid() != end.IsValid() {
		return badRequest(side+"_ADDRESS_END_INVALID", "The address '%s' is not valid.", to)
	}
	if end.Less(start) {
		return badRequest(side+"_ADDRESS_ORDER_ILLEGAL", "The address %s is after %s.", from, to)
	}
	first, err := port(firstPort)
	if err != nil {
		return badRequest(side+"_PORT_START_INVALID", "The port '%s' is not valid.", firstPort)
	}
	last, err := port(lastPort)
	if err != nil || (first == 0) != (last == 0) {
		return badRequest(side+"_PORT_END_INVALID", "The port '%s' is not valid.", lastPort)
	}
	if last < first {
		return badRequest(side+"_PORT_ORDER_ILLEGAL", "The port %d is after %d.", first, last)
	}
	if first != 0 && r.Protocol != "tcp" && r.Protocol != "udp" {
		return badRequest("PORT_PROTOCOL_MISMATCH", "Ports need the protocol 'tcp' or 'udp'.")
	}
	return nil
}

// address reads an address of the rule's family; empty: none.
func (r *firewallRule) address(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err == nil && familyOf(a) != r.Family {
		err = errFamily
	}
	return a, err
}

var errFamily = badRequest("IP_ADDRESS_INVALID", "The address is not of the rule's family.")

// port reads a port number; empty: 0.
func port(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return int(n), err
}

func (v *server) numberRules() {
	for i := range v.rules {
		v.rules[i].Position = itoa(i + 1)
	}
}

func (s *Simulator) listFirewallRules(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var out firewallRulesBody
	out.FirewallRules.FirewallRule = append([]firewallRule{}, v.rules...)
	return out, nil
}

// firewallRule returns the index of the rule that a path names.
func (s *Simulator) firewallRule(c *call) (*server, int, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, 0, err
	}
	n, err := strconv.Atoi(c.path("position"))
	if err != nil {
		return nil, 0, badRequest("POSITION_INVALID", "The position '%s' is not valid.", c.path("position"))
	}
	if n < 1 || n > len(v.rules) {
		return nil, 0, notFound("FIREWALL_RULE_NOT_FOUND", "The server %s has no firewall rule %d.", v.uuid, n)
	}
	return v, n - 1, nil
}

func (s *Simulator) getFirewallRule(c *call) (any, error) {
	v, i, err := s.firewallRule(c)
	if err != nil {
		return nil, err
	}
	return firewallRuleBody{v.rules[i]}, nil
}

// createFirewallRule puts the rule at its position, before the one that is there, or at the end.
func (s *Simulator) createFirewallRule(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req firewallRuleBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := req.FirewallRule
	if err := r.check(); err != nil {
		return nil, err
	}
	if len(v.rules) >= maxFirewallRules {
		return nil, conflict("FIREWALL_RULE_LIMIT_REACHED", "The server %s has %d firewall rules.", v.uuid, len(v.rules))
	}
	at := len(v.rules)
	if r.Position != "" {
		n, err := strconv.Atoi(r.Position)
		if err != nil || n < 1 || n > maxFirewallRules {
			return nil, badRequest("POSITION_INVALID", "The position '%s' is not valid.", r.Position)
		}
		at = min(at, n-1)
	}
	v.rules = slices.Insert(v.rules, at, r)
	v.numberRules()
	return firewallRuleBody{v.rules[at]}, nil
}

// replaceFirewallRules puts rules in the place of all that are there.
func (s *Simulator) replaceFirewallRules(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req firewallRulesBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	rules := req.FirewallRules.FirewallRule
	if len(rules) > maxFirewallRules {
		return nil, conflict("FIREWALL_RULE_LIMIT_REACHED", "A server has at most %d firewall rules.", maxFirewallRules)
	}
	for i := range rules {
		if err := rules[i].check(); err != nil {
			return nil, err
		}
	}
	v.rules = rules
	v.numberRules()
	return nil, nil
}

func (s *Simulator) deleteFirewallRule(c *call) (any, error) {
	v, i, err := s.firewallRule(c)
	if err != nil {
		return nil, err
	}
	v.rules = slices.Delete(v.rules, i, i+1)
	v.numberRules()
	return nil, nil
}

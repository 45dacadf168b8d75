package simulator

// zone is one of UpCloud's locations.
type zone struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	Public      yesNo  `json:"public"`
	ParentZone  string `json:"parent_zone,omitempty"` // of private zones
}

// knownZones are the public zones of the documentation and one private one: the load balancers of a private zone's
// servers live in its parent zone.
var knownZones = []zone{
	{ID: "au-syd1", Description: "Sydney #1", Public: true},
	{ID: "de-fra1", Description: "Frankfurt #1", Public: true},
	{ID: "dk-cph1", Description: "Copenhagen #1", Public: true},
	{ID: "es-mad1", Description: "Madrid #1", Public: true},
	{ID: "fi-hel1", Description: "Helsinki #1", Public: true},
	{ID: "fi-hel2", Description: "Helsinki #2", Public: true},
	{ID: "fi-tst1", Description: "Test Cloud #1", ParentZone: "fi-hel2"},
	{ID: "nl-ams1", Description: "Amsterdam #1", Public: true},
	{ID: "no-svg1", Description: "Stavanger #1", Public: true},
	{ID: "pl-waw1", Description: "Warsaw #1", Public: true},
	{ID: "se-sto1", Description: "Stockholm #1", Public: true},
	{ID: "sg-sin1", Description: "Singapore #1", Public: true},
	{ID: "uk-lon1", Description: "London #1", Public: true},
	{ID: "us-chi1", Description: "Chicago #1", Public: true},
	{ID: "us-nyc1", Description: "New York #1", Public: true},
	{ID: "us-sjo1", Description: "San Jose #1", Public: true},
}

type zoneList struct {
	Zones struct {
		Zone []zone `json:"zone"`
	} `json:"zones"`
}

func (s *Simulator) listZones(*call) (any, error) {
	var out zoneList
	out.Zones.Zone = s.zones
	return out, nil
}

func (st *state) checkZone(id string) error {
	if id == "" {
		return badRequest("ZONE_MISSING", "The required attribute 'zone' is missing from the request.")
	}
	for _, z := range st.zones {
		if z.ID == id {
			return nil
		}
	}
	return notFound("ZONE_NOT_FOUND", "The zone %s does not exist.", id)
}

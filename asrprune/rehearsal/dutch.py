"""Define the Dutch words and carrier sentences of rehearsal corpora, in their usual spelling."""

WORDS = {
    "name": "Anna Pieter Maria David Laura Simon Heleen Robert Alice Maarten Julia Daniël Emma "
    "Thomas Noortje Olivier Sarah Victor Linda Joris Zoë",
    "city": "Londen Parijs Berlijn Madrid Dublin Genève Utrecht Lissabon Wenen Napels Amsterdam "
    "Rotterdam Antwerpen Gent Leiden Zwolle Brugge",
    "items": "appels flessen stoelen boeken dozen ramen potloden brieven dekens bloemen eieren "
    "kaarsen lampen knopen manden borden foto's auto's",
    "thing": "fiets jas tafel piano spiegel radio bank ketel",
    "place": "tuin winkel markt haven school kerk molen keuken",
    "street": "Kerkstraat Molenweg Parklaan Kasteelplein",
    "weekday": "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
    "month": "januari februari maart april mei juni juli augustus september oktober november "
    "december",
    "part_of_day": "morgens middags avonds",
}

SENTENCES = (
    "bel me op {digits}.",
    "{name}, bel {name} op {digits}!",
    "mijn nummer is {digits}.",
    "de trein naar {city} vertrekt om {hour} uur {minutes}.",
    "de {ordinal} trein naar {city} is {small} minuten te laat.",
    "het vliegtuig naar {city} vertrekt van uitgang {small}.",
    "vlucht {digits} komt om {hour} uur 's {part_of_day} uit {city}.",
    "{name} wacht om {hour} uur bij de {place}.",
    "maak me 's {part_of_day} om half {hour} wakker.",
    "de {place} is open van {hour} tot {hour}.",
    "zo'n {thing} kost {small} euro.",
    "{name} betaalde {number} euro voor de {thing}.",
    "we hebben {small} {items} verkocht.",
    "{small} {items} en {small} {items}, alsjeblieft.",
    "er zijn {number} {items} in de {place}.",
    "breng {weekday} {small} {items} naar de {place}.",
    "de vergadering is op {weekday} {day} {month}.",
    "{name} is geboren op {day} {month} {year}.",
    "in {year} ging {name} van {city} naar {city}.",
    "de {place} is van het jaar {year}.",
    "de brief van {day} {month} kwam {weekday} aan.",
    "het is {decimal} kilometer van {city} naar {city}.",
    "in {city} is het vandaag {small} graden.",
    "de prijzen stegen in {month} met {decimal} procent.",
    "{thousands} mensen wonen in {city}.",
    "in {month} telden we {thousands} bezoekers.",
    "{name} heeft in {city} een {thing} verloren.",
    "{name} woont op {street} {number}.",
    "uw kamer is {digits}, op de {ordinal} verdieping.",
    "sla het boek open op bladzijde {number}, regel {small}.",
    "de code voor de {place} is {digits}.",
    "{name} is {small} jaar.",
    "dank je, {name}.",
    "goedemorgen {name}, hoe gaat het?",
    "tot {weekday}!",
    "{number} {items}.",
    "{weekday} {day} {month}.",
)

# A number of 100 or more is one long word. The numbers below 100 are few enough to be learnt.
NUMBERS = ("{digits}.", "{digits}, {digits}.", "{small}.", "{small}, {small}.", "{decimal}.")

"""Define the Italian words and carrier sentences of rehearsal corpora, in their usual spelling."""

WORDS = {
    "name": "Anna Pietro Maria Davide Laura Simone Elena Roberto Alice Martino Giulia Daniele Emma "
    "Tommaso Nora Oliviero Sara Vittorio Linda Giorgio Niccolò",
    "city": "Londra Parigi Berlino Madrid Dublino Ginevra Torino Lisbona Vienna Napoli Roma Milano "
    "Firenze Bologna Venezia Genova Palermo Forlì",
    "items": "mele arance biglietti bottiglie sedie libri scatole finestre matite lettere "
    "coperte fiori uova candele lampade bottoni camicie cesti piatti",
    "thing": "divano tappeto tavolo pianoforte quadro telefono cappotto libro",
    "place": "giardino mercato museo porto negozio castello parco caffè",
    "street": "Garibaldi Mazzini Dante Verdi Cavour",
    "weekday": "lunedì martedì mercoledì giovedì venerdì sabato domenica",
    "month": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
    "dicembre",
    "part_of_day": "mattina sera notte",
}

SENTENCES = (
    "chiamami al {digits}.",
    "{name}, chiama {name} al {digits}!",
    "il mio numero è {digits}.",
    "il treno per {city} parte alle {hour} e {minutes}.",
    "il {ordinal} treno per {city} ha {small} minuti di ritardo.",
    "l'aereo per {city} parte dall'uscita {small}.",
    "il volo {digits} arriva da {city} alle {hour} di {part_of_day}.",
    "{name} t'aspetta alle {hour} davanti al {place}.",
    "svegliami alle {hour} e mezza.",
    "il {place} è aperto dalle {hour} alle {hour}.",
    "questo {thing} costa {small} euro.",
    "{name} ha pagato {number} euro per il {thing}.",
    "abbiamo venduto {small} {items}.",
    "{small} {items} e {small} {items}, per favore.",
    "ci sono {number} {items} nell'armadio.",
    "porta {small} {items} al {place}, e un po' di pane.",
    "la riunione è {weekday} {day} {month}.",
    "{name} è nato il {day} {month} {year}.",
    "nel {year} {name} andò da {city} a {city}.",
    "il {place} è dell'anno {year}.",
    "la lettera del {day} {month} è arrivata {weekday} {part_of_day}.",
    "mancano {decimal} chilometri da {city} a {city}.",
    "oggi a {city} ci sono {small} gradi.",
    "i prezzi sono saliti del {decimal} per cento a {month}.",
    "{thousands} persone vivono a {city}.",
    "a {month} c'erano {thousands} visitatori.",
    "{name} ha perso il {thing} a {city}.",
    "{name} abita in via {street}, numero {number}.",
    "la sua camera è la {digits}, al {ordinal} piano.",
    "aprite il libro a pagina {number}, riga {small}.",
    "il codice dell'ingresso è {digits}.",
    "{name} ha {small} anni.",
    "grazie, {name}.",
    "buongiorno {name}, come va?",
    "a {weekday}!",
    "{number} {items}.",
    "{weekday} {day} {month}.",
)

# A number of 100 or more is one long word. The numbers below 100 are few enough to be learnt.
NUMBERS = ("{digits}.", "{digits}, {digits}.", "{small}.", "{small}, {small}.", "{decimal}.")

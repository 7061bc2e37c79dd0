"""Define the French words and carrier sentences of rehearsal corpora, in their usual spelling."""

WORDS = {
    "name": "Anna Pierre Marie David Laure Simon Hélène Robert Alice Martin Julie Daniel Emma "
    "Thomas Noémie Olivier Sarah Victor Léa Georges",
    "city": "Londres Paris Berlin Madrid Dublin Genève Lyon Lisbonne Vienne Nantes Marseille "
    "Naples Bruxelles Strasbourg Dijon Toulouse Rennes Tours",
    "items": "pommes oranges billets bouteilles chaises livres boîtes fenêtres crayons lettres "
    "caméras couvertures fleurs œufs bougies lampes boutons chemises paniers assiettes",
    "thing": "vélo manteau tapis miroir piano tableau canapé téléphone",
    "place": "jardin bureau marché musée port magasin château café",
    "street": "château moulin marché pont théâtre",
    "weekday": "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "month": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "part_of_day": "matin soir après-midi",
}

SENTENCES = (
    "appelez-moi au {digits}.",
    "{name}, appelle {name} au {digits} !",
    "mon numéro est le {digits}.",
    "le train de {city} part à {hour} heures {minutes}.",
    "le {ordinal} train pour {city} a {small} minutes de retard.",
    "l'avion pour {city} part de la porte {small}.",
    "le vol {digits} arrive de {city} à {hour} heures du {part_of_day}.",
    "{name} t'attend à {hour} heures devant le {place}.",
    "réveillez-moi à {hour} heures et demie.",
    "le {place} est ouvert de {hour} heures à {hour} heures.",
    "ce {thing} coûte {small} euros.",
    "{name} a payé {number} euros pour le {thing}.",
    "nous avons vendu {small} {items}.",
    "{small} {items} et {small} {items}, s'il vous plaît.",
    "il y a {number} {items} dans l'armoire.",
    "apporte {small} {items} au {place} {weekday} prochain.",
    "la réunion a lieu {weekday}, le {day} {month}.",
    "{name} est né le {day} {month} {year}.",
    "en {year}, {name} a quitté {city} pour {city}.",
    "le {place} date de l'année {year}.",
    "la lettre du {day} {month} est arrivée {weekday} {part_of_day}.",
    "il y a {decimal} kilomètres jusqu'à {city}.",
    "il fait {small} degrés à {city} aujourd'hui.",
    "les prix ont augmenté de {decimal} pour cent en {month}.",
    "{thousands} personnes habitent à {city}.",
    "on a compté {thousands} visiteurs en {month}.",
    "{name} a perdu son {thing} à {city}.",
    "{name} habite au {number}, rue du {street}.",
    "votre chambre est la {digits}, au {ordinal} étage.",
    "ouvrez le livre à la page {number}, ligne {small}.",
    "le code de l'entrée est {digits}.",
    "{name} a {small} ans.",
    "merci, {name}.",
    "bonjour {name}, ça va ?",
    "à {weekday} !",
    "{number} {items}.",
    "{weekday} {day} {month}.",
)

NUMBERS = ("{digits}.", "{digits}, {digits}.", "{number}.", "{thousands}.", "{decimal}.", "{year}.")
